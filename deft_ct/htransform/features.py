"""What the h-transform is told of a measurement."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deft_ct.classical.reference import reference_reconstruction
from deft_ct.htransform.guidance import reference_guidance
from deft_ct.htransform.head import Condition, HTransform
from deft_ct.measurement import Likelihood
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.redundancy import missing_direction, missing_fraction

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
    """What an h-transform for many scans is told of the one at hand; zero for 60 full parallel views at 1e5 photons.

    Args:
        likelihood: of a parallel or fan-beam scan.
        direction: whether to tell the direction of the missing lines, too.

    Returns:
        ``(B, 4)`` float32, or ``(B, 6)`` with the direction, each of order one: the number of views, as
        ``log2(views / 60)``; what is missing of the lines through the image, as twice their share (0 for a short scan
        of a fan, too); the noise, as ``log10(photons / 1e5)`` with the equivalent photons of other noise, limited to
        1e3 to 1e7; half the fan angle in radians, 0 for parallel beams; and the second feature times cosine and sine of
        twice the middle direction of the missing lines, which go to zero with them.

    Raises:
        ValueError: the operator is not a parallel or fan-beam scan.
    """
    geometry = getattr(likelihood.operator, "geometry", None)
    if not isinstance(likelihood.operator, RayTransform) or not isinstance(geometry, FanGeometry | ParallelGeometry):
        raise ValueError(
            f"this h-transform is for parallel and fan-beam CT, got {type(likelihood.operator).__name__}: train one "
            "without scan features"
        )
    missing = missing_fraction(geometry)
    opening = float(abs(geometry.fan_angles).max()) if isinstance(geometry, FanGeometry) else 0.0
    noise = (likelihood.photons.double() / 1e5).log10().clamp(-2, 2).float()
    told = [math.log2(geometry.sinogram_shape[0] / 60), 2 * missing, 0.0, opening]
    if direction:
        angle = 2 * missing_direction(geometry)
        told += [2 * missing * math.cos(angle), 2 * missing * math.sin(angle)]
    features = noise.new_tensor(told).repeat(len(noise), 1)
    features[:, 2] = noise
    return features
