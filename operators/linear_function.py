"""A linear map as a function of autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Kernel = Callable[[Tensor], Tensor]


class LinearFunction(torch.autograd.Function):
    """A linear map whose derivative is its transpose, again through this function: differentiable to any order."""

    @staticmethod
    def forward(kernel: Kernel, transpose: Kernel, x: Tensor) -> Tensor:
        """Apply the map."""
        with torch.autocast(x.device.type, enabled=False):  # line integrals do not survive half precision
            return kernel(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep both directions."""
        ctx.kernel, ctx.transpose, _ = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        """The transpose, which is differentiable again."""
        return None, None, LinearFunction.apply(ctx.transpose, ctx.kernel, grad)

    @staticmethod
    def jvp(ctx: Any, _kernel: None, _transpose: None, tangent: Tensor) -> Tensor:
        """The map of the tangent."""
        return LinearFunction.apply(ctx.kernel, ctx.transpose, tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], kernel: Kernel, transpose: Kernel, x: Tensor) -> tuple[Tensor, int]:
        """The map of a batch."""
        # Kernels take any number of leading axes, so a mapped axis is one more of them.
        return LinearFunction.apply(kernel, transpose, x.movedim(in_dims[2], 0)), 0
