"""Random changes of training images that keep them plausible; each domain has its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""``augment(images, generator)``: ``(B, *image_shape)`` to the same shape; the generator is on the CPU."""


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """No change."""
    return images


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the photographs ``(B, C, H, W)`` left to right."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip.to(images.device).reshape(-1, 1, 1, 1), images.flip(-1), images)


def rotated(points: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate each cloud of points ``(B, N, 3)`` around its centre of mass, uniformly over all rotations."""
    q, r = torch.linalg.qr(torch.randn(len(points), 3, 3, generator=generator))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]  # uniform over rotations and reflections
    q[:, :, 0] *= torch.linalg.det(q).sign()[:, None]  # rotations only
    centre = points.mean(1, keepdim=True)
    return (points - centre) @ q.to(points) + centre
