"""Selection: some of the points are observed, the others are unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deft_ct.operators.base import LinearOperator
from deft_ct.operators.svd import SingularValueDecomposition


class Selection(LinearOperator):
    """The rows ``indices`` of a point set, ``(N, 3) -> (M, 3)``, in the order of the indices.

    Args:
        length: number of points ``N``.
        indices: the observed points, each in ``0 ... N - 1`` and at most once.

    Raises:
        TypeError: an index is not an integer.
        ValueError: no index, an index out of range, or one that occurs twice.
    """

    indices: Tensor

    def __init__(self, length: int, indices: Sequence[int] | Tensor) -> None:
        chosen = torch.as_tensor(indices)
        if not chosen.numel():
            raise ValueError("Selection: indices are empty; name at least one point")
        if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
            raise TypeError(
                f"Selection: indices must be integers, got {chosen.dtype}; for a mask pass mask.nonzero().flatten()"
            )
        if chosen.ndim != 1:
            raise ValueError(f"Selection: indices must be one-dimensional, got shape {tuple(chosen.shape)}")
        outside = chosen[(chosen < 0) | (chosen >= length)].tolist()
        if outside:
            raise ValueError(f"Selection: indices must be in 0 ... {length - 1}, got {outside[0]}")
        values, counts = chosen.unique(return_counts=True)
        if len(values) < len(chosen):
            raise ValueError(f"Selection: each point may be chosen once, but {int(values[counts > 1][0])} occurs twice")
        super().__init__((length, 3), (len(chosen), 3))
        self.register_buffer("indices", chosen.to(torch.int64).clone())

    def embed(self, y: Tensor) -> Tensor:
        """The points in their places and zero elsewhere: ``(..., M, 3) -> (..., N, 3)``."""
        empty = torch.zeros((*y.shape[:-2], *self.domain_shape), dtype=y.dtype, device=y.device)
        return empty.index_copy(-2, self.indices, y)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return x.index_select(-2, self.indices)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.embed(y)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """The observed points, zero elsewhere: the adjoint, since ``A A^T`` is the identity."""
        return self.adjoint(y)

    def svd(self) -> SingularValueDecomposition:
        """The basis of images is the identity; singular values are one where a point is observed, else zero."""
        return _SelectionSVD(self)


class _SelectionSVD(SingularValueDecomposition):
    def __init__(self, operator: Selection) -> None:
        self._operator = operator
        super().__init__(operator.embed(torch.ones(operator.range_shape, device=operator.indices.device)))

    def to_spectral(self, x: Tensor) -> Tensor:
        return x

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def data_to_spectral(self, y: Tensor) -> Tensor:
        return self._operator.embed(y)

    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        return coefficients.index_select(-2, self._operator.indices)
