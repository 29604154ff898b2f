"""Operators that measure some entries of an orthonormal transform of the image."""

from __future__ import annotations

import abc
from typing import ClassVar

import torch
from torch import Tensor

from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.svd import SingularValueDecomposition


class Subset(LinearOperator):
    """``y = S V^T x``: the entries ``indices`` of the coefficients ``V^T x`` along one axis. So ``A A^T = I``.

    Attributes:
        axis: which axis of the coefficients and of the data it is, counted from the end.
        indices: ``(M,)``, int64; subclasses register it as a buffer.
    """

    axis: ClassVar[int]
    indices: Tensor

    @abc.abstractmethod
    def analyse(self, x: Tensor) -> Tensor:
        """All coefficients ``V^T x``, with any batch axes."""

    @abc.abstractmethod
    def synthesise(self, coefficients: Tensor) -> Tensor:
        """``V c``, the inverse of :meth:`analyse`."""

    @property
    @abc.abstractmethod
    def length(self) -> int:
        """Number of coefficients along the axis."""

    def embed(self, y: Tensor) -> Tensor:
        """``S^T y``: the measured coefficients in place, zero elsewhere."""
        shape = list(y.shape)
        shape[self.axis] = self.length
        return y.new_zeros(shape).index_copy(self.axis, self.indices, y)

    def restrict(self, coefficients: Tensor) -> Tensor:
        """``S c``: the measured coefficients."""
        return coefficients.index_select(self.axis, self.indices)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self.restrict(self.analyse(x))

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.synthesise(self.embed(y))

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """The adjoint, since ``A A^T`` is the identity."""
        return self.adjoint(y)

    def svd(self) -> SingularValueDecomposition:
        """The transform as basis; singular values are one where a coefficient is measured, else zero."""
        return _SubsetSVD(self)


class _SubsetSVD(SingularValueDecomposition):
    def __init__(self, operator: Subset) -> None:
        self._operator = operator
        super().__init__(
            operator.embed(torch.ones(operator.range_shape, dtype=torch.float32, device=operator.indices.device))
        )

    def to_spectral(self, x: Tensor) -> Tensor:
        return self._operator.analyse(x)

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        return self._operator.synthesise(coefficients)

    def data_to_spectral(self, y: Tensor) -> Tensor:
        return self._operator.embed(y)

    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        return self._operator.restrict(coefficients)
