"""A problem: images with their measured data, the truth, and metrics. It is the same for every method.

A :class:`Problem` belongs to a domain (see :mod:`deft_ct.problems`). Comparing, tuning and calibrating know this
interface only.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.measurement.content import measurement_content
from deft_ct.measurement.measurement import Measurement
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.data_split import DataSplit

__all__ = ["COVERAGE", "Batch", "Metric", "Problem", "SingleMeasurementProblem", "refuse_test_data"]

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


_GIVEN = "_given_batches"
"""Where a problem keeps data that were not simulated; problems are frozen dataclasses."""


class Batch(NamedTuple):
    """Data of a few images that share one measurement.

    Attributes:
        y: ``(B, C, *)`` data.
        measurement: how they came about.
        image_ids: a name for each image; noise and sampling of an image depend on (seed, name) alone.
    """

    y: Tensor
    measurement: Measurement
    image_ids: list[str]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a problem measures of an image.

    Attributes:
        name: short name, for example ``"psnr"``.
        key: name in stored results, with the unit, for example ``"psnr_db"``.
        heading: of its column in a table.
        digits: decimals in a table.
        best: ``"highest"`` or ``"lowest"``; None if neither is better, as for a bias.
        in_table: whether a comparison shows it.
    """

    name: str
    key: str
    heading: str
    digits: int
    best: Literal["highest", "lowest"] | None
    in_table: bool = True


COVERAGE = Metric(
    name="coverage_90", key="coverage_90", heading="coverage of 90 % intervals", digits=3, best=None, in_table=False
)
"""Of the posterior standard deviation, inside the mask of a problem; undefined for methods without one."""


class Problem(abc.ABC):
    """Images with their measured data, the truth and metrics.

    Data and truth are made when they are first asked for, and kept until :meth:`release`. Subclasses set the
    attributes and write the abstract methods.

    Attributes:
        unit: of the images, for example ``"HU"``; empty for values without one.
        metrics: what is measured of every image, in the order of the tables.
        seed: of the noise, and of the sampling unless another one is given.
        batch_size: images at once.
        device: where the data are.
        group_noun: what :attr:`patients` are in words; images of one are not independent.
        kind: what an image is to somebody who draws it.
    """

    group_noun: str = "patient"
    kind: Literal["slice", "photograph", "other"] = "other"
    unit: str
    metrics: tuple[Metric, ...]
    seed: int
    batch_size: int
    device: str

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name of the measurement, for example ``"parallel60_1e5"``; presets are stored by it."""

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """The measurement in words."""

    @property
    @abc.abstractmethod
    def data(self) -> str:
        """Name of the data set."""

    @property
    @abc.abstractmethod
    def split(self) -> DataSplit | None:
        """Which part of the data it is; None if that is not known."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abc.abstractmethod
    def simulate(self) -> Sequence[Batch]:
        """Data of all images, in order: simulated, or read where the images have data of their own."""

    @abc.abstractmethod
    def true_images(self) -> Floats:
        """``(N, *shape)`` true images in :attr:`unit`."""

    @abc.abstractmethod
    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """Name of each metric -> ``(N,)`` values of reconstructed images, which are as :attr:`truth`."""

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain values that the numbers depend on, apart from the measurement: data, seed, data range.

        The data are there twice: by their name, for people, and by their content under ``"data_sha256"``.
        """

    @abc.abstractmethod
    def describe_measurement(self) -> dict[str, Any]:
        """The measurement as plain values, for records."""

    def content(self) -> dict[str, Any]:
        """All that the data and the metrics depend on, for content keys."""
        given = self.__dict__.get(_GIVEN)
        replaced = {} if given is None else {"batches": content_digest(batch.y for batch in given)}
        return {**self.settings(), "measurement": self.describe_measurement(), **replaced}

    @abc.abstractmethod
    def conventions(self) -> str:
        """One or two sentences on the data and on how the metrics are taken."""

    @property
    @abc.abstractmethod
    def patients(self) -> list[str]:
        """The patient (or another source) of each image; images of one are not independent."""

    @cached_property
    def batches(self) -> Sequence[Batch]:
        """Data of all images, in order."""
        given: Sequence[Batch] | None = self.__dict__.get(_GIVEN)
        return self.simulate() if given is None else given

    @cached_property
    def truth(self) -> Floats:
        """``(N, *shape)`` true images in :attr:`unit`."""
        return self.true_images()

    def to_numpy(self, values: Tensor) -> Floats:
        """``(B, *image_shape)`` values of a reconstruction in the layout of :attr:`truth`."""
        found: Floats = values.cpu().numpy()
        return found

    def picture(self, image: Floats) -> Floats:
        """What is shown of one image of :attr:`truth`, or of a reconstruction of it."""
        return image

    @property
    def mask(self) -> Mask:
        """Where errors and posterior standard deviations are judged, of the shape of :attr:`truth`."""
        return np.ones(self.truth.shape, dtype=np.bool_)

    def regions(self) -> dict[str, Mask]:
        """Parts of the images that are reported on their own, each of the shape of :attr:`truth`."""
        return {"all": self.mask}

    @property
    def image_ids(self) -> list[str]:
        """The name of each image."""
        return [name for batch in self.batches for name in batch.image_ids]

    @property
    def replaced(self) -> bool:
        """Whether the data were given and not simulated, see :meth:`with_batches`."""
        return _GIVEN in self.__dict__

    def with_batches(self, batches: Sequence[Batch]) -> Self:
        """The same images and metrics with other data, for example of a measurement that is not as described."""
        other = copy.copy(self)
        other.__dict__.pop("batches", None)
        other.__dict__[_GIVEN] = list(batches)
        return other

    def batch_names(self) -> list[list[str]]:
        """The names of the images of each batch. Subclasses that know them without making the data say so."""
        return [list(batch.image_ids) for batch in self.batches]

    def one_batch(self, number: int, part: slice = slice(None)) -> Self:
        """One batch with its truth, to be measured on its own; the other attributes stay those of the whole problem.

        Args:
            number: of the batch.
            part: of its images; all by default.
        """
        names = self.batch_names()
        first = sum(len(batch) for batch in names[:number])
        other = copy.copy(self)
        other.release()  # what subclasses have made of data and truth
        batch = self.batches[number]
        if part != slice(None):
            batch = Batch(batch.y[part], batch.measurement[part], batch.image_ids[part])
        other.__dict__["batches"] = [batch]
        other.__dict__["truth"] = self.truth[first : first + len(names[number])][part]
        return other

    def shared_content(self) -> dict[str, Any]:
        """All that the result of every image depends on, for content keys; :meth:`image_contents` says the rest."""
        return self.content()

    def image_contents(self) -> list[str]:
        """What the result of each image depends on besides :meth:`shared_content`, as digests.

        Subclasses that say it here and not in :meth:`shared_content` let results be used again with other images
        around them, for example when a benchmark is extended.
        """
        return [""] * len(self)

    def release(self) -> None:
        """Forget data and truth; they are made again when they are asked for."""
        for name in ("batches", "truth"):
            self.__dict__.pop(name, None)

    def metric(self, name: str) -> Metric:
        """A metric by name, as the objective of a search.

        Raises:
            ValueError: there is no such metric, or neither high nor low values of it are better.
        """
        found = {metric.name: metric for metric in self.metrics if metric.best is not None}
        if name not in found:
            raise ValueError(f"objective must be one of {', '.join(found)}, got {name!r}")
        return found[name]


class SingleMeasurementProblem(Problem):
    """Images of a data set with one measurement for all of them, each of its own source.

    Attributes:
        label: name of the measurement.
        measurement: of the images.
    """

    label: str
    measurement: Measurement
    group_noun = "image"
    unit = ""

    @property
    @abc.abstractmethod
    def positions(self) -> list[int]:
        """Places in the data set of the images that are judged; as text they are the names of the images."""

    @abc.abstractmethod
    def images_at(self, positions: list[int]) -> Tensor:
        """``(B, *shape)`` true images at these places of the data set, on the CPU."""

    @property
    def name(self) -> str:
        """Name of the measurement."""
        return self.label

    @property
    def title(self) -> str:
        """The operator and the noise."""
        return f"{type(self.measurement.operator).__name__}, {type(self.measurement.noise).__name__}"

    @property
    def patients(self) -> list[str]:
        """Every image stands for itself."""
        return [str(n) for n in self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def batch_names(self) -> list[list[str]]:
        """See ``Problem.batch_names``."""
        return super().batch_names() if self.replaced else [[str(n) for n in chosen] for chosen in self._chosen()]

    def simulate(self) -> list[Batch]:
        """Simulated data of every image; they depend only on the seed and the image's position."""
        measurement = self.measurement.to(self.device)
        made = []
        for chosen in self._chosen():
            names = [str(n) for n in chosen]
            x = self.images_at(chosen).to(self.device)
            made.append(Batch(measurement.simulate(x, seed=self.seed, image_ids=names), measurement, names))
        return made

    def true_images(self) -> Floats:
        """``(N, *shape)`` true images."""
        found: Floats = self.images_at(self.positions).numpy()
        return found

    def _chosen(self) -> list[list[int]]:
        """The places of the images of each batch."""
        return [self.positions[first : first + self.batch_size] for first in range(0, len(self), self.batch_size)]

    def describe_measurement(self) -> dict[str, Any]:
        """Operator and noise."""
        return self.measurement.describe()

    def content(self) -> dict[str, Any]:
        """See ``Problem.content``; the operator with its parameters."""
        return super().content() | {"measurement": measurement_content(self.measurement)}


def refuse_test_data(problem: Problem) -> None:
    """Parameters are chosen on training or validation data.

    Raises:
        ValueError: the problem is of a test set.
    """
    if problem.split == "test":
        raise ValueError(f"{problem.data} is a test set: parameters are chosen on validation data only (val)")
