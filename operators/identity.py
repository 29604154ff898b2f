"""The identity: denoising as an inverse problem."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.svd import DiagonalSVD


class Identity(LinearOperator):
    """``y = x``.

    Args:
        image_shape: shape of the images without batch axes, e.g. ``(3, 256, 256)``.
    """

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        super().__init__(image_shape, image_shape)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return y.clone()

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """``y`` itself."""
        return self.adjoint(y)

    def svd(self) -> DiagonalSVD:
        """Both bases are the identity, all singular values one."""
        return DiagonalSVD(torch.ones(self.domain_shape, dtype=torch.float32))
