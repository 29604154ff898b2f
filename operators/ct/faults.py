"""Detector faults for robustness tests: systematic errors that no noise model describes.

A fault is a frozen value; calling it returns a damaged copy of the data and draws from the given generators only.
Sinograms are ``(B, C, views, detectors)``; with ``detector_ndim=2`` the last two axes are a flat-panel detector.
"""

from __future__ import annotations

import abc
import dataclasses
import math

import torch
from torch import Tensor

from deft_ct.operators.noise import Generators, generators_for


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorFault(abc.ABC):
    """A fault of single detector elements, the same in all views.

    Args:
        fraction: probability that an element is faulty.
        detector_ndim: 1 for a detector line, 2 for a panel.

    Raises:
        ValueError: a parameter is out of range.
    """

    fraction: float
    detector_ndim: int = 1

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"{name}: fraction must be in [0, 1], got {self.fraction}")
        if self.detector_ndim not in (1, 2):
            raise ValueError(f"{name}: detector_ndim must be 1 (line) or 2 (panel), got {self.detector_ndim}")

    def __call__(self, y: Tensor, generator: Generators) -> Tensor:
        """A damaged copy of ``(B, ..., views, detectors)``."""
        y = y.clone()
        for index, source in enumerate(generators_for(y, generator)):
            shape = y.shape[y.ndim - self.detector_ndim :]
            faulty = torch.rand(shape, generator=source, device=source.device, dtype=torch.float32) < self.fraction
            y[index] = self._damage(y[index], faulty, source)
        return y

    @abc.abstractmethod
    def _damage(self, y: Tensor, faulty: Tensor, generator: torch.Generator) -> Tensor:
        """Data of one sample with the faults of the elements in the mask ``faulty`` (on the generator's device)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RingArtefact(DetectorFault):
    """Gain errors, which are rings in the reconstruction; the rest as in :class:`DetectorFault`.

    Args:
        amplitude: standard deviation of the additive error of a faulty element, in the units of post-log data (for a
            small gain error, minus its relative size).

    Raises:
        ValueError: a parameter is out of range.
    """

    amplitude: float = 0.05
    fraction: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.amplitude) and self.amplitude >= 0):
            raise ValueError(f"RingArtefact: amplitude must be a finite number >= 0, got {self.amplitude}")

    def _damage(self, y: Tensor, faulty: Tensor, generator: torch.Generator) -> Tensor:
        error = self.amplitude * torch.randn(faulty.shape, generator=generator, device=generator.device)
        return y + (faulty * error).to(y)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeadDetectors(DetectorFault):
    """Elements that read one constant; the rest as in :class:`DetectorFault`.

    Args:
        value: constant reading of a dead element, in the units of the data. For post-log data, no counts read as
            ``-log(floor / photons)``, which is 11.5 at 1e4 photons with floor 0.1. An element set to air reads 0.

    Raises:
        ValueError: a parameter is out of range.
    """

    fraction: float = 0.01
    value: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.value):
            raise ValueError(f"DeadDetectors: value must be finite, got {self.value}")

    def _damage(self, y: Tensor, faulty: Tensor, generator: torch.Generator) -> Tensor:
        return y.masked_fill(faulty.to(y.device), self.value)
