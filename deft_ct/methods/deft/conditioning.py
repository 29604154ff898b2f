"""What the h-transform is told of a measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft.guidance import reference_guidance
from deft_ct.methods.deft.htransform import Condition, HTransform
from deft_ct.methods.deft.scan_embedding import SCAN_FEATURES
from deft_ct.methods.initial import reference_reconstruction

SPREAD_SLOPES = (-0.3, 1.0, -0.1, 0.0)
"""``HTransformConfig.spread_slopes`` for the TV reference: how its error on val grows with fewer views, a smaller
angular range and more noise; fitted to scans of 15 to 200 views, 90 to 180 degrees and 1e4 to 1e6 photons."""


@torch.no_grad()
def condition_for(
    likelihood: Likelihood, head: HTransform, *, tabulated: tuple[Tensor, Tensor] | None = None
) -> Condition:
    """Compute the reference reconstruction, its remainder and the scan features, once for a measurement.

    Args:
        likelihood: the measurement with its data, in the prior's range.
        head: says which reference, and whether the scan is told; its refinement improves the reference.
        tabulated: the reference and its remainder, where they were computed before; not refined.

    Returns:
        The condition, empty when the configuration has neither a reference nor scan features.

    Raises:
        ValueError: the configuration wants scan features and the measurement is not a scan.
    """
    config = head.config
    scan = scan_features(likelihood, direction=config.arc_direction) if config.scan_features else None
    if config.reference == "none":
        return Condition(scan=scan)
    if tabulated is None:
        reference = reference_reconstruction(likelihood, config.reference, iterations=config.tv_iterations)
        remainder = None
    else:
        reference, remainder = tabulated
    if config.refinement is not None:
        if remainder is None:
            remainder = likelihood.guidance(reference, config.refinement.guidance)
        reference, remainder = head.refine(reference, remainder, scan), None
    if remainder is None:
        remainder = reference_guidance(likelihood, reference, config)
    return Condition(reference=reference, remainder=remainder, scan=scan)


def scan_features(likelihood: Likelihood, *, direction: bool = False) -> Tensor:
    """Descriptor of a measurement for conditioning, see ``Operator.features``.

    Args:
        likelihood: of a parallel or fan-beam scan.
        direction: whether to keep the direction of the missing lines, the last two of the features.

    Returns:
        ``(B, 4)`` float32, or ``(B, 6)`` with the direction.

    Raises:
        ValueError: the operator has no features.
    """
    features = likelihood.features
    return features if direction else features[:, :SCAN_FEATURES]
