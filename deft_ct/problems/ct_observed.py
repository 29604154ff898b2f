"""CT images that come with observations of their own: they are read when they are needed, never simulated."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.scan import Scan
from deft_ct.evaluation.problem import Batch, Floats
from deft_ct.measurement.content import measurement_content
from deft_ct.measurement.measurement import Measurement
from deft_ct.problems.ct_slices import HounsfieldProblem
from deft_ct.runtime.content_key import content_digest


class LazyBatches(Sequence[Batch]):
    """Batches that are read each time they are asked for, so that a large data set need not fit into memory.

    Args:
        problem: whose data they are.
        places: numbers of the images of each batch.
    """

    def __init__(self, problem: ObservedCTProblem, places: Sequence[Sequence[int]]) -> None:
        self._problem, self._places = problem, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, n: int) -> Batch: ...

    @overload
    def __getitem__(self, n: slice) -> LazyBatches: ...

    def __getitem__(self, n: int | slice) -> Batch | LazyBatches:
        if isinstance(n, slice):
            return LazyBatches(self._problem, self._places[n])
        return self._problem.read_batch(self._places[n])


class ObservedCTProblem(HounsfieldProblem):
    """Images in HU with their own observations. Subclasses say how to read one image.

    Attributes:
        scan: the most similar scan by name, by which tuned parameters are chosen.
    """

    scan: Scan

    @abc.abstractmethod
    def observation(self, n: int) -> Tensor:
        """``(1, views, detectors)`` line integrals of image ``n`` of those judged, on the CPU."""

    @abc.abstractmethod
    def true_image(self, n: int) -> NDArray[np.float32]:
        """``(H, W)`` HU of image ``n`` of those judged."""

    @abc.abstractmethod
    def measurement_of(self, n: int) -> Measurement:
        """How the observation of image ``n`` came about, on the problem's device; one object where it is shared."""

    @property
    @abc.abstractmethod
    def image_ids(self) -> list[str]:
        """The name of each image."""

    @property
    def name(self) -> str:
        """Name of the measurement."""
        return f"own_{self.scan.name}"

    @property
    def title(self) -> str:
        """The scan in words."""
        return f"own observations: {self.scan}"

    def __len__(self) -> int:
        return len(self.image_ids)

    def simulate(self) -> LazyBatches:
        """The observations; images of a batch share one measurement."""
        return LazyBatches(self, self._places())

    def batch_names(self) -> list[list[str]]:
        """The names of the images of each batch; nothing is read."""
        if self.replaced:
            return super().batch_names()
        return [[self.image_ids[n] for n in places] for places in self._places()]

    def _places(self) -> list[list[int]]:
        """Images of each batch."""
        places: list[list[int]] = []
        for _, run in groupby(range(len(self)), key=lambda n: id(self.measurement_of(n))):
            together = list(run)
            places += [together[k : k + self.batch_size] for k in range(0, len(together), self.batch_size)]
        return places

    def read_batch(self, places: Sequence[int]) -> Batch:
        """Data of some images that share one measurement."""
        y = torch.stack([self.observation(n) for n in places]).to(self.device)
        return Batch(y, self.measurement_of(places[0]), [self.image_ids[n] for n in places])

    def true_images(self) -> Floats:
        """``(N, H, W)`` HU."""
        return np.stack([self.true_image(n) for n in range(len(self))])

    def describe_measurement(self) -> dict[str, Any]:
        """Operator, noise and units of the first image."""
        return {"own_observations": True, **self.measurement_of(0).describe()}

    def content(self) -> dict[str, Any]:
        """See ``Problem.content``; every measurement with the parameters of its operator."""
        return super().content() | {"measurements": self._measurements_hash}

    @cached_property
    def data_sha256(self) -> str:
        """SHA-256 of names, observations and true images, one image at a time."""
        return content_digest(self._parts())

    @cached_property
    def _measurements_hash(self) -> str:
        different = {id(m): m for m in map(self.measurement_of, range(len(self)))}
        return content_digest(str(sorted(measurement_content(m).items())) for m in different.values())

    def _parts(self) -> Iterator[Any]:
        for n, name in enumerate(self.image_ids):
            yield name
            yield self.observation(n)
            yield self.true_image(n)
