"""A problem: images with their measured data, the truth, and metrics. It is the same for every method.

A :class:`Problem` belongs to a domain (see :mod:`deft_ct.problems`). Comparing, tuning and calibrating know this
interface only.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.evaluation.spread import half_width, interval_coverage
from deft_ct.measurement.content import measurement_content
from deft_ct.measurement.measurement import Measurement
from deft_ct.reconstruction import Reconstruction
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.data_split import DataSplit
from deft_ct.runtime.memory import peak_memory
from deft_ct.runtime.plain_values import plain

__all__ = [
    "COVERAGE", "Batch", "Metric", "Problem", "Score", "SingleMeasurementProblem", "refuse_test_data", "score",
    "score_json", "values_in_unit",
]  # fmt: skip

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
    """

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

    def one_batch(self, number: int) -> Self:
        """One batch with its truth, to be measured on its own; the other attributes stay those of the whole problem."""
        names = self.batch_names()
        first = sum(len(batch) for batch in names[:number])
        other = copy.copy(self)
        other.release()  # what subclasses have made of data and truth
        other.__dict__["batches"] = [self.batches[number]]
        other.__dict__["truth"] = self.truth[first : first + len(names[number])]
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


@dataclass(frozen=True, kw_only=True)
class Score:
    """A method on the images of a problem.

    Attributes:
        label: name in the table.
        values: name of the metric -> a value for every image.
        metrics: of the problem, and :data:`COVERAGE`.
        seconds_per_image: wall-clock time.
        evaluations_per_image: network evaluations.
        data_residual: relative, mean over the batches.
        memory_mib: peak memory for one image, above the memory used before; None if not measured.
        estimate: ``(N, *shape)`` in the unit of the problem.
        spread: ``(N, *shape)`` posterior standard deviation in the same unit, or None.
        provenance: of the first batch: configuration, hashes, versions.
    """

    label: str
    values: Mapping[str, NDArray[np.float64]]
    metrics: tuple[Metric, ...]
    seconds_per_image: float
    evaluations_per_image: float
    data_residual: float
    memory_mib: float | None
    estimate: Floats
    spread: Floats | None
    provenance: dict[str, Any]


def refuse_test_data(problem: Problem) -> None:
    """Parameters are chosen on training or validation data.

    Raises:
        ValueError: the problem is of a test set.
    """
    if problem.split == "test":
        raise ValueError(f"{problem.data} is a test set: parameters are chosen on validation data only (val)")


def values_in_unit(result: Reconstruction) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Mean, standard deviation and samples in the unit of the measurement's scale; as they are if it has none."""
    if result.measurement.units is None:
        return result.mean, result.std, result.samples
    found = result.in_units
    return found.mean, found.std, found.samples


def score(
    label: str,
    reconstructor: Reconstructor,
    problem: Problem,
    *,
    samples: int = 4,
    seed: int | None = None,
    measure_memory: bool = False,
    progress: bool = False,
) -> Score:
    """Reconstruct every image of a problem and compare with the truth.

    Args:
        label: name in the table.
        reconstructor: the method.
        problem: images with their data.
        samples: posterior samples of each image, for methods that draw them.
        seed: of the sampling; that of the problem when None.
        measure_memory: first reconstruct the first image alone and note the peak memory; what a method sets up once is
            then not part of the times.
        progress: show progress bars.
    """
    seed = problem.seed if seed is None else seed
    memory = None
    if measure_memory:
        y, measurement, image_ids = problem.batches[0]
        with peak_memory(problem.device) as peak:
            reconstructor.reconstruct(y[:1], measurement[:1], num_samples=samples, seed=seed, image_ids=image_ids[:1])
        memory = peak.mib
    results = [
        reconstructor.reconstruct(
            y, measurement, num_samples=samples, seed=seed, image_ids=image_ids, progress=progress
        )
        for y, measurement, image_ids in problem.batches
    ]
    counts = np.array([len(batch.image_ids) for batch in problem.batches], float)

    def average(field: str) -> float:
        return float(np.average([r.provenance[field] for r in results], weights=counts))

    found = [values_in_unit(result) for result in results]
    estimate = np.concatenate([problem.to_numpy(mean) for mean, _, _ in found])
    spreads = [problem.to_numpy(std) for _, std, _ in found if std is not None]
    covered = np.full(len(estimate), np.nan)
    if spreads:
        half = [std * half_width(result, 0.9) for std, result in zip(spreads, results, strict=True)]
        covered = interval_coverage(problem.truth, estimate, np.concatenate(half), problem.mask)
    return Score(
        label=label,
        values={**problem.measure(estimate), COVERAGE.name: covered},
        metrics=(*problem.metrics, COVERAGE),
        seconds_per_image=average("seconds_per_image"),
        evaluations_per_image=average("network_evaluations_per_image"),
        data_residual=average("data_residual"),
        memory_mib=memory,
        estimate=estimate,
        spread=np.concatenate(spreads) if spreads else None,
        provenance=results[0].provenance,
    )


def score_json(result: Score) -> dict[str, Any]:
    """A score as plain values, per image; values that JSON cannot hold become null."""
    return {
        **{metric.key: plain(result.values[metric.name]) for metric in result.metrics},
        "seconds_per_slice": result.seconds_per_image, "evaluations_per_slice": result.evaluations_per_image,
        "peak_memory_one_slice_mib": result.memory_mib, "data_residual": result.data_residual,
    }  # fmt: skip
