"""Rigid motions of point sets."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_onto(points: Tensor, target: Tensor) -> Tensor:
    """The rotation that brings points closest to others, by the sum of squared distances.

    The unit quaternion is the eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix (Horn 1987, J. Opt.
    Soc. Am. A 4, 629). Unlike the polar decomposition it needs no case for reflections. Differentiable to any order
    where the best rotation is unique.

    Args:
        points: ``(..., M, 3)``, centred, float64.
        target: ``(..., M, 3)``, centred, float64.

    Returns:
        ``(..., 3, 3)``: ``points @ rotation`` is closest to ``target``; NaN for points that are not finite, as of a
        method that has diverged.
    """
    # Correlations S[a, b] of coordinate a of the points with coordinate b of the target.
    s = (points[..., :, None] * target[..., None, :]).sum(-3)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = ([s[..., a, b] for b in range(3)] for a in range(3))
    rows = (
        (xx + yy + zz, yz - zy, zx - xz, xy - yx),
        (yz - zy, xx - yy - zz, xy + yx, zx + xz),
        (zx - xz, xy + yx, yy - xx - zz, yz + zy),
        (xy - yx, zx + xz, yz + zy, zz - xx - yy),
    )
    matrix = torch.stack([torch.stack(row, -1) for row in rows], -2)
    finite = torch.isfinite(matrix).all(-1, keepdim=True).all(-2, keepdim=True)  # eigh raises on NaN: let it pass
    known = torch.where(finite, matrix, torch.eye(4, dtype=matrix.dtype, device=matrix.device))
    w, x, y, z = torch.linalg.eigh(known).eigenvectors[..., -1].unbind(-1)
    columns = (
        (w * w + x * x - y * y - z * z, 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), w * w - x * x + y * y - z * z, 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), w * w - x * x - y * y + z * z),
    )
    rotation = torch.stack([torch.stack(row, -1) for row in columns], -2)
    return torch.where(finite, rotation, torch.nan)
