"""What the h-transform is told of a measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft.guidance import reference_guidance
from deft_ct.methods.deft.htransform import Condition, HTransform, HTransformConfig
from deft_ct.methods.deft.scan_embedding import SCAN_FEATURES
from deft_ct.methods.initial import check_initial, reference_reconstruction
from deft_ct.operators.base import LinearOperator
from deft_ct.reconstructor import UnsupportedError

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


def check_htransform(name: str, config: HTransformConfig, shape: tuple[int, ...], likelihood: Likelihood) -> None:
    """Refuse a measurement that an h-transform cannot be used with, before any work.

    Args:
        name: of the method.
        config: of the h-transform.
        shape: of one image.
        likelihood: the measurement with its data.

    Raises:
        UnsupportedError: the network is for other images; or the operator lacks what the initial reconstruction, the
            guidance or the conditioning needs.
    """
    if len(shape) != 3 or shape[0] != config.channels:
        raise UnsupportedError(
            f"{name} needs an h-transform for images of shape {shape}, and this one is for images of shape "
            f"({config.channels}, H, W)"
        )
    if config.reference != "none":
        check_initial(name, likelihood, config.reference)
    if config.guidance in ("cg", "split") and not isinstance(likelihood.operator, LinearOperator):
        raise UnsupportedError(f"{name} with {config.guidance} guidance needs a linear operator: use score guidance")
    if config.guidance in ("fbp", "data"):
        check_initial(name, likelihood, "fbp")
    if config.scan_features:
        try:
            scan_features(likelihood)
        except ValueError as error:
            raise UnsupportedError(f"{name} is conditioned on the scan: {error}") from None


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
