"""Forward differences on the grid of an image or a volume, and their transpose, for smoothness penalties."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deft_ct.operators.base import Operator


def difference_scales(operator: Operator) -> tuple[float, ...] | None:
    """Factor of the difference along each axis of the grid of an operator's images.

    A gradient is a difference over a distance. Distances are counted in the smallest spacing of the grid, so the
    factors are ``min(spacing) / spacing``: 1 along every axis of square pixels and cubic voxels.

    Args:
        operator: on images ``(H, W)`` or ``(C, H, W)``, or on volumes with a known spacing
            (``Operator.grid_spacing``).

    Returns:
        One factor for each of the last axes of the domain, which are those of space; the axis of channels has none.
        None where the domain has other axes.
    """
    spacing = operator.grid_spacing
    if spacing is not None:
        return tuple(min(spacing) / step for step in spacing)
    return (1.0, 1.0) if len(operator.domain_shape) in (2, 3) else None


def forward_differences(x: Tensor, scales: Sequence[float]) -> Tensor:
    """``D x``: scaled differences to the next sample along each of the last axes, zero across the border.

    Args:
        x: ``(..., *grid)``.
        scales: one factor for each axis of the grid.

    Returns:
        ``(..., d, *grid)`` for a grid of ``d`` axes.
    """
    d = len(scales)
    out = x.new_zeros((*x.shape[: x.ndim - d], d, *x.shape[x.ndim - d :]))
    for axis, scale in enumerate(scales):
        dim = axis - d
        part = out.select(-d - 1, axis).narrow(dim, 0, x.shape[dim] - 1)
        torch.sub(x.narrow(dim, 1, x.shape[dim] - 1), x.narrow(dim, 0, x.shape[dim] - 1), out=part)
        if scale != 1:
            part *= scale
    return out


def add_adjoint_differences(total: Tensor, field: Tensor, scales: Sequence[float]) -> Tensor:
    """Add ``D^T field`` to ``total`` in place, and return it.

    Args:
        total: ``(..., *grid)``.
        field: ``(..., d, *grid)``, zero where :func:`forward_differences` is (in the last sample of each axis).
        scales: as there.
    """
    d = len(scales)
    for axis, scale in enumerate(scales):
        dim, values = axis - d, field.select(-d - 1, axis)
        count = total.shape[dim] - 1
        total.sub_(values, alpha=scale)
        total.narrow(dim, 1, count).add_(values.narrow(dim, 0, count), alpha=scale)
    return total
