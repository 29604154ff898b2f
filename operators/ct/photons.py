"""Photon counts of line integrals: of noise-free data, and those that other noise is equivalent to."""

from __future__ import annotations

import torch
from torch import Tensor

NOISE_FREE_PHOTONS = 1e6
"""Photon count assumed for noise-free CT data; beyond it model error dominates noise."""

_LEAST_READINGS = 8
_MEDIAN_OF_A_GAUSSIAN = 0.6745
_RANGE = (1e2, 1e7)


def equivalent_photons(y: Tensor, weights: Tensor | None) -> Tensor:
    """Photons of an unattenuated ray with which photon noise would be as strong.

    Photon noise has the weights ``photons * exp(-y)``, so this is the geometric mean of ``weights * exp(y)``.

    Args:
        y: line integrals ``(B, ...)``.
        weights: inverse variances, of the shape of ``y``; None for noise-free data.

    Returns:
        ``(B,)``; :data:`NOISE_FREE_PHOTONS` for noise-free data.
    """
    if weights is None:
        return torch.full((len(y),), NOISE_FREE_PHOTONS, dtype=torch.float32, device=y.device)
    seen = weights > 0
    logs = torch.where(seen, weights.double(), 1.0).log() + torch.where(seen, y.double(), 0.0)
    return (logs.flatten(1).sum(1) / seen.flatten(1).sum(1).clamp_min(1)).exp()


def estimated_photons(lines: Tensor) -> float:
    """Photons of an unattenuated ray whose noise is as strong as that of measured line integrals.

    Photon noise has the variance ``exp(y) / photons``, and a second difference of three readings six times that. Their
    robust standard deviation is taken over neighbouring elements and over neighbouring views. The object adds to both,
    so the weaker noise counts; the estimate is still somewhat too low for objects with fine detail.

    Args:
        lines: ``(slices, views, detectors)`` line integrals, views in the order of their angles.

    Returns:
        The photons, from 100 to 1e7; :data:`NOISE_FREE_PHOTONS` where there is nothing to tell it from.
    """
    found = []
    for axis in (1, 2):
        if lines.shape[axis] < _LEAST_READINGS:
            continue
        first, middle, last = (lines.narrow(axis, k, lines.shape[axis] - 2) for k in range(3))
        second = (first - 2 * middle + last).double() * (-0.5 * middle.double()).exp()
        sigma = float(second.abs().median()) / _MEDIAN_OF_A_GAUSSIAN
        if sigma > 0:
            found.append(6 / sigma**2)
    return min(max(max(found), _RANGE[0]), _RANGE[1]) if found else NOISE_FREE_PHOTONS
