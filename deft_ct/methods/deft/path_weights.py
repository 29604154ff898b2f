"""Importance weights of diffusion paths: effective number, tempering and resampling."""

from __future__ import annotations

import torch
from torch import Tensor

_BISECTIONS = 40


def effective_number(weights: Tensor) -> Tensor:
    """Kish's effective number ``(sum w)^2 / sum w^2`` of each row of ``(B, K)``, between 1 and K."""
    return weights.sum(1).square() / weights.square().sum(1)


def tempered_weights(costs: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Weights proportional to ``exp(-a C)`` with the largest ``a <= 1`` whose effective number is ``share * K``.

    Weights ``exp(-C)`` of a few paths with many rays are degenerate: one path has nearly all of the weight. The
    effective number falls as ``a`` grows, so bisection finds ``a``.

    Args:
        costs: ``(B, K)``, the costs of K paths for each of B measurements.
        share: between 0 and 1.

    Returns:
        Weights ``(B, K)`` whose rows sum to 1, and exponents ``a`` ``(B,)``; both float64.
    """
    relative = costs.double().amin(1, keepdim=True) - costs.double()
    low, high = torch.zeros(len(costs)).double(), torch.ones(len(costs)).double()
    wanted = share * costs.shape[1]
    untempered = effective_number(relative.softmax(1)) >= wanted
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        good = effective_number((middle[:, None] * relative).softmax(1)) >= wanted
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    exponent = torch.where(untempered, torch.ones_like(low), low)
    return (exponent[:, None] * relative).softmax(1), exponent


def resample(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Systematic resampling: K paths for each measurement, drawn in proportion to their weights.

    Args:
        weights: ``(B, K)``, float64, rows of sum 1.
        generator: source of the random offsets.

    Returns:
        Indices ``(B * K,)`` into the flattened paths, K of each measurement in its own place.
    """
    count, paths = weights.shape
    points = (torch.arange(paths) + torch.rand(count, 1, generator=generator, dtype=torch.float64)) / paths
    chosen = torch.searchsorted(weights.cumsum(1).contiguous(), points).clamp_max(paths - 1)
    return (chosen + paths * torch.arange(count)[:, None]).flatten()
