"""What a ray-transform backend offers; :class:`~deft_ct.operators.ct.RayTransform` adds shapes and autograd."""

from __future__ import annotations

import abc

import torch
from torch import Tensor


class Backend(abc.ABC):
    """Raw projection kernels for one geometry.

    Attributes:
        name: the name that selects it.
        matched: whether :meth:`adjoint` is the exact transpose of :meth:`forward`, up to rounding.
        dtypes: the floating-point types that it computes in.
    """

    name: str
    matched: bool = True
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, *image_shape)`` in 1/mm to line integrals ``(N, *sinogram_shape)``."""

    @abc.abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Map ``(N, *sinogram_shape)`` to ``(N, *image_shape)``."""
