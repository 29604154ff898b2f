"""What the h-transform is told of a measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.classical.tv import total_variation
from deft_ct.htransform.head import Condition, HTransformConfig
from deft_ct.measurement import Likelihood
from deft_ct.operators.base import LinearOperator

TV_STRENGTH = 5.0
"""Weight of the total variation per unit of the prior's range: 250 per 1/mm for a range of 1000 HU a unit."""
TV_ITERATIONS = 16
"""Within 0.6 dB of the minimiser; the head does the rest, and training computes it at every step."""


@torch.no_grad()
def condition_for(likelihood: Likelihood, config: HTransformConfig) -> Condition:
    """Compute the reference reconstruction and its remainder, once for a measurement.

    Args:
        likelihood: the measurement with its data, in the prior's range.
        config: says which reference.

    Returns:
        The condition, empty when the configuration has no reference.
    """
    if config.reference == "none":
        return Condition()
    reference = _total_variation(likelihood) if config.reference == "tv" else _pseudo_inverse(likelihood)
    return Condition(reference=reference, remainder=likelihood.guidance(reference, config.guidance))


def _pseudo_inverse(likelihood: Likelihood) -> Tensor:
    return likelihood.to_physical.inverse(likelihood.operator.pseudo_inverse(likelihood.y))


def _total_variation(likelihood: Likelihood) -> Tensor:
    operator = likelihood.operator
    if not isinstance(operator, LinearOperator):
        raise ValueError(f"the TV reference needs a linear operator, got {type(operator).__name__}")
    scale = likelihood.to_physical.scale
    strength = TV_STRENGTH / (scale[:, :, 0, 0] if isinstance(scale, Tensor) else scale)
    mu, _ = total_variation(
        likelihood.y, operator, weights=likelihood.weights, strength=strength, iterations=TV_ITERATIONS, tolerance=0.0
    )
    return likelihood.to_physical.inverse(mu)
