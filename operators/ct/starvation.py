"""Rays without a photon whose logarithm was taken of next to nothing: what the other rays say of them.

The logarithm of a tenth of a count lies 2.3 above that of a single one, as of a reading that may still be one. That of
1e-6 of a count is no line integral of anything, and an image that is to fit it is wrong everywhere. Such rays are
replaced by the projection of an image that fits all others, and is smooth where they say nothing.

Other rays without a photon do not change. That they were absorbed is a measurement, and networks that have seen few
photons make use of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.operators.ct.plausibility import saturated_rays
from deft_ct.operators.differences import add_adjoint_differences, difference_scales, forward_differences
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.solvers import conjugate_gradient

GAP = 4.0
"""Distance to the largest line integral below, beyond which the largest one is none: 2.3 between no photon and one."""
ITERATIONS = 60
SMOOTHNESS = 0.02
"""Weight of the squared differences of the image, in units of the squared norm of the operator."""


def unmeasured_rays(lines: Tensor) -> Tensor:
    """Rays without a photon whose value says nothing.

    Args:
        lines: ``(lines, views, detectors)`` line integrals.

    Returns:
        A mask of the same shape: rays that read exactly the largest value, where it is far beyond all others.
    """
    none = saturated_rays(lines)
    gap = lines.amax((1, 2)) - lines.masked_fill(none, -torch.inf).amax((1, 2))
    return none & (gap > GAP)[:, None, None]


def with_rays_filled(lines: Tensor, missing: Tensor, operator: LinearOperator) -> Tensor:
    """Line integrals with some rays replaced by the projection of a smooth image that fits the others.

    The image minimises ``|A x - y|^2 + SMOOTHNESS |A|^2 |D x|^2`` with the first norm over the other rays, by conjugate
    gradients. Each slice is by itself.

    Args:
        lines: ``(lines, views, detectors)``.
        missing: a mask of the same shape; slices without such rays do not change.
        operator: the ray transform of the scan.
    """
    which = missing.any(2).any(1)
    y, known = lines[which][:, None], ~missing[which][:, None]
    weight = SMOOTHNESS * operator.norm() ** 2
    scales = difference_scales(operator) or (1.0, 1.0)

    def normal(x: Tensor) -> Tensor:
        return add_adjoint_differences(
            operator.adjoint(operator(x) * known), weight * forward_differences(x, scales), scales
        )

    image, _ = conjugate_gradient(normal, operator.adjoint(y * known), iterations=ITERATIONS)
    out = lines.clone()
    out[which] = torch.where(known, y, operator(image.clamp_min(0)))[:, 0]
    return out
