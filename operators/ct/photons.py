"""Photon counts of line integrals: of noise-free data, and those that other noise is equivalent to."""

from __future__ import annotations

import torch
from torch import Tensor

NOISE_FREE_PHOTONS = 1e6
"""Photon count assumed for noise-free CT data; beyond it model error dominates noise."""


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
