"""The quick reconstructions that networks start from."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from deft_ct.classical.tv import total_variation
from deft_ct.measurement import Likelihood
from deft_ct.operators.base import LinearOperator

Reference = Literal["fbp", "tv"]

TV_STRENGTH = 5.0
"""Weight of the total variation per unit of the prior's range: 250 per 1/mm for a range of 1000 HU a unit."""
TV_ITERATIONS = 16
"""Within 0.6 dB of the minimiser; a network does the rest, and training computes it at every step."""


@torch.no_grad()
def reference_reconstruction(likelihood: Likelihood, kind: Reference) -> Tensor:
    """Reconstruct the data of a likelihood without a network.

    Args:
        likelihood: the measurement with its data.
        kind: ``"fbp"`` for the pseudo-inverse (Ram-Lak FBP for CT), ``"tv"`` for a few iterations of total variation.

    Returns:
        ``(B, C, H, W)`` in the range of the likelihood's images.

    Raises:
        ValueError: the kind is unknown, or TV is asked for and the operator is not linear.
    """
    if kind == "fbp":
        return likelihood.to_physical.inverse(likelihood.operator.pseudo_inverse(likelihood.y))
    if kind != "tv":
        raise ValueError(f"unknown reference {kind!r}; known: fbp, tv")
    operator = likelihood.operator
    if not isinstance(operator, LinearOperator):
        raise ValueError(f"the TV reference needs a linear operator, got {type(operator).__name__}")
    scale = likelihood.to_physical.scale
    strength = TV_STRENGTH / (scale[:, :, 0, 0] if isinstance(scale, Tensor) else scale)
    mu, _ = total_variation(
        likelihood.y, operator, weights=likelihood.weights, strength=strength, iterations=TV_ITERATIONS, tolerance=0.0
    )
    return likelihood.to_physical.inverse(mu)
