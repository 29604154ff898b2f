"""Detector faults for robustness tests: systematic errors that no noise model describes.

A fault is a frozen value; calling it returns a damaged copy of the data and draws from the given generators only.
Sinograms are ``(B, C, views, detectors)``; with ``detector_ndim=2`` the last two axes are a flat-panel detector.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from deft_ct.operators.noise import Generators, generators_for


@dataclasses.dataclass(frozen=True)
class RingArtefact:
    """Gain errors of single detector elements, the same in all views: rings in the reconstruction.

    Args:
        amplitude: standard deviation of the additive error of a faulty element, in the units of post-log data (for a
            small gain error, minus its relative size).
        fraction: probability that an element is faulty.
        detector_ndim: 1 for a detector line, 2 for a panel.

    Raises:
        ValueError: a parameter is out of range.
    """

    amplitude: float = 0.05
    fraction: float = 0.25
    detector_ndim: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.amplitude) and self.amplitude >= 0):
            raise ValueError(f"RingArtefact: amplitude must be a finite number >= 0, got {self.amplitude}")
        _check(self)

    def __call__(self, y: Tensor, generator: Generators) -> Tensor:
        """Add the errors to post-log data ``(B, ..., views, detectors)``."""
        y = y.clone()
        for index, source in enumerate(generators_for(y, generator)):
            shape = y.shape[y.ndim - self.detector_ndim :]
            faulty = torch.rand(shape, generator=source, device=source.device, dtype=torch.float32) < self.fraction
            error = self.amplitude * torch.randn(shape, generator=source, device=source.device)
            y[index] += (faulty * error).to(y)
        return y


@dataclasses.dataclass(frozen=True)
class DeadDetectors:
    """Detector elements that read one constant in all views.

    Args:
        fraction: probability that an element is dead.
        value: constant reading of a dead element, in the units of the data. For post-log data, no counts read as
            ``-log(floor / photons)``, which is 11.5 at 1e4 photons with floor 0.1. An element set to air reads 0.
        detector_ndim: 1 for a detector line, 2 for a panel.

    Raises:
        ValueError: a parameter is out of range.
    """

    fraction: float = 0.01
    value: float = 0.0
    detector_ndim: int = 1

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"DeadDetectors: value must be finite, got {self.value}")
        _check(self)

    def __call__(self, y: Tensor, generator: Generators) -> Tensor:
        """Overwrite the dead elements of ``(B, ..., views, detectors)``."""
        y = y.clone()
        for index, source in enumerate(generators_for(y, generator)):
            shape = y.shape[y.ndim - self.detector_ndim :]
            dead = torch.rand(shape, generator=source, device=source.device, dtype=torch.float32) < self.fraction
            y[index] = y[index].masked_fill(dead.to(y.device), self.value)
        return y


def _check(fault: RingArtefact | DeadDetectors) -> None:
    name = type(fault).__name__
    if not 0 <= fault.fraction <= 1:
        raise ValueError(f"{name}: fraction must be in [0, 1], got {fault.fraction}")
    if fault.detector_ndim not in (1, 2):
        raise ValueError(f"{name}: detector_ndim must be 1 (line) or 2 (panel), got {fault.detector_ndim}")
