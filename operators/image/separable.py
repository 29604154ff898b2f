"""Separable linear operators: one small matrix for the rows and one for the columns of every channel."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.svd import SingularValueDecomposition


class Separable(LinearOperator):
    """``y = R x C^T`` for every channel: blurs and resampling with any boundary rule, exactly adjoint by construction.

    Args:
        channels: number of channels ``C``.
        row_matrix: ``(h, H)``, acts along the height.
        column_matrix: ``(w, W)``, acts along the width.
    """

    row_matrix: Tensor
    column_matrix: Tensor

    def __init__(self, channels: int, row_matrix: Tensor, column_matrix: Tensor) -> None:
        super().__init__(
            (channels, row_matrix.shape[1], column_matrix.shape[1]),
            (channels, row_matrix.shape[0], column_matrix.shape[0]),
        )
        self.register_buffer("row_matrix", row_matrix.to(torch.float64))
        self.register_buffer("column_matrix", column_matrix.to(torch.float64))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return apply_separable(self.row_matrix, self.column_matrix, x)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return apply_separable(self.row_matrix.T, self.column_matrix.T, y)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Truncated pseudo-inverse; see :meth:`SingularValueDecomposition.pseudo_inverse`."""
        return self.svd().pseudo_inverse(y)

    def svd(self) -> SeparableSVD:
        """Decomposition from the decompositions of the two small matrices."""
        return SeparableSVD(self.domain_shape[0], self.row_matrix, self.column_matrix)


class SeparableSVD(SingularValueDecomposition):
    """Decomposition of :class:`Separable`: the bases are Kronecker products, ``(R, C) = (U1 s1 V1^T, U2 s2 V2^T)``."""

    def __init__(self, channels: int, row_matrix: Tensor, column_matrix: Tensor) -> None:
        self._row_u, row_values, self._row_v = _complete_svd(row_matrix)
        self._column_u, column_values, self._column_v = _complete_svd(column_matrix)
        super().__init__((row_values[:, None] * column_values).expand(channels, -1, -1).clone())

    def to_spectral(self, x: Tensor) -> Tensor:
        """``V1^T x V2`` for every channel."""
        return apply_separable(self._row_v.T, self._column_v.T, x)

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        """``V1 c V2^T`` for every channel."""
        return apply_separable(self._row_v, self._column_v, coefficients)

    def data_to_spectral(self, y: Tensor) -> Tensor:
        """``U1^T y U2`` for every channel, zero where the singular value is."""
        return apply_separable(self._row_u.T, self._column_u.T, y) * (self.singular_values > 0).to(y.dtype)

    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        """``U1 c U2^T`` for every channel."""
        observed = coefficients * (self.singular_values > 0).to(coefficients.dtype)
        return apply_separable(self._row_u, self._column_u, observed)


def apply_separable(row_matrix: Tensor, column_matrix: Tensor, x: Tensor) -> Tensor:
    """``R x C^T`` over the last two axes of ``(..., H, W)``, in the dtype of ``x``.

    One product of fixed size per image: folding the batch into one large product would let the batch size change the
    order of summation, and with it the last bit.
    """
    planes = x.reshape(-1, *x.shape[-2:])
    rows = row_matrix.to(x.dtype).expand(len(planes), -1, -1)
    columns = column_matrix.to(x.dtype).T.expand(len(planes), -1, -1)
    out = torch.bmm(torch.bmm(rows, planes), columns)
    return out.reshape(*x.shape[:-2], *out.shape[-2:])


def _complete_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Full ``V`` with ``U`` and the singular values padded by zeros to its size: ``(m, n), (n,), (n, n)``."""
    m, n = matrix.shape
    u, values, vt = torch.linalg.svd(matrix, full_matrices=True)
    rank_bound = min(m, n)
    # Values at rounding level are zeros of the exact matrix; left as they are they would be inverted.
    values = torch.where(values > values.max() * max(m, n) * torch.finfo(matrix.dtype).eps, values, 0.0)
    u_padded = matrix.new_zeros((m, n))
    u_padded[:, :rank_bound] = u[:, :rank_bound]
    return u_padded, torch.nn.functional.pad(values, (0, n - rank_bound)), vt.T
