"""A linear operator on points: some of them are observed."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.operators.base import LinearOperator


class PointSelection(LinearOperator):
    """``y = x[index]`` for points ``(count, 3)``."""

    index: Tensor

    def __init__(self, count: int, index: list[int]) -> None:
        super().__init__((count, 3), (len(index), 3))
        self.register_buffer("index", torch.tensor(index))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return x[:, self.index]

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return y.new_zeros(len(y), *self.domain_shape).index_copy(1, self.index, y)
