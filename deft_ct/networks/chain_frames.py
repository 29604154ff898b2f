"""Geometry of an ordered chain of points that a network computes with: local frames, and neighbours along the chain.

Coordinates are ``(B, N, 3)``. Frames turn with the chain and are right-handed, so features in them do not depend on
its pose and do depend on its mirror image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SMALL = 1e-3
"""Lengths below this shrink unit vectors, so that their derivative stays bounded where a length vanishes."""


def unit(vector: Tensor) -> Tensor:
    """``vector`` over its length, which is bounded below smoothly; ``(..., 3)``."""
    return vector / length(vector)[..., None]


def length(vector: Tensor) -> Tensor:
    """Length of ``(..., 3)``, bounded below smoothly; ``(...)``."""
    return (vector.square().sum(-1) + _SMALL**2).sqrt()


def frames(chain: Tensor) -> Tensor:
    """Right-handed frames of each point from its two neighbours, as Frenet's of a curve.

    Args:
        chain: ``(B, N, 3)`` with ``N >= 3``.

    Returns:
        ``(B, N, 3, 3)``: the columns are tangent, normal and binormal. The first and last point have the frame of
        their neighbour. Columns are shorter than 1 where neighbours coincide or lie on one line.
    """
    ahead, behind = chain[:, 2:] - chain[:, 1:-1], chain[:, 1:-1] - chain[:, :-2]
    tangent = unit(ahead + behind)
    bend = ahead - behind
    normal = unit(bend - (bend * tangent).sum(-1, keepdim=True) * tangent)
    found = torch.stack([tangent, normal, torch.linalg.cross(tangent, normal)], -1)
    return torch.cat([found[:, :1], found, found[:, -1:]], 1)


def into(frame: Tensor, vectors: Tensor) -> Tensor:
    """Components of ``(B, N, K, 3)`` vectors in the frames ``(B, N, 3, 3)`` of their points."""
    return torch.matmul(vectors, frame)


def out_of(frame: Tensor, components: Tensor) -> Tensor:
    """The inverse of :func:`into` for orthonormal frames."""
    return torch.matmul(components, frame.transpose(-1, -2))


def neighbours(chain: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Vectors to the points up to ``reach`` places before and after each point.

    Returns:
        ``(B, N, 2 * reach, 3)``, zero beyond the ends of the chain, and ``(N, 2 * reach)`` with 1 where there is a
        point, else 0.
    """
    count = chain.shape[1]
    padded = functional.pad(chain, (0, 0, reach, reach))
    offsets = [k for k in range(-reach, reach + 1) if k]
    index = torch.arange(count, device=chain.device)[:, None] + torch.tensor(offsets, device=chain.device)
    there = ((index >= 0) & (index < count)).to(chain.dtype)
    return (padded[:, index + reach] - chain[:, :, None]) * there[..., None], there


def gaussians(distance: Tensor, low: float, high: float, count: int) -> Tensor:
    """Gaussian bumps on a grid from ``low`` to ``high``, one grid step wide; ``(...)`` to ``(..., count)``."""
    centers = torch.linspace(low, high, count, device=distance.device, dtype=distance.dtype)
    step = (high - low) / (count - 1)
    return torch.exp(-0.5 * ((distance[..., None] - centers) / step).square())
