"""What the h-transform is told of a measurement."""

from __future__ import annotations

import torch

from deft_ct.classical.reference import reference_reconstruction
from deft_ct.htransform.head import Condition, HTransformConfig
from deft_ct.measurement import Likelihood


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
    reference = reference_reconstruction(likelihood, config.reference)
    return Condition(reference=reference, remainder=likelihood.guidance(reference, config.guidance))
