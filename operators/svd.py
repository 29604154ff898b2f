"""Singular value decompositions of operators that have a cheap one, for the methods that work in spectral space."""

from __future__ import annotations

import abc
from typing import Protocol, runtime_checkable

from torch import Tensor


class SingularValueDecomposition(abc.ABC):
    """``A = U diag(s) V^T`` with both bases applied as fast transforms.

    Spectral space is one real tensor of shape ``spectral_shape`` with as many entries as the domain, so ``V`` is square
    and orthogonal. Data are embedded in the same space: entries whose singular value is zero hold zero, and ``U`` is a
    partial isometry.

    Args:
        singular_values: ``spectral_shape``, non-negative, in no particular order; with a batch axis before it if
            each image has values of its own.
        per_image: whether they have that axis.
    """

    def __init__(self, singular_values: Tensor, *, per_image: bool = False) -> None:
        self.singular_values = singular_values
        """As given."""
        self.per_image = per_image
        """Whether each image has singular values of its own, ``(B, *spectral_shape)``."""

    @property
    def spectral_shape(self) -> tuple[int, ...]:
        """Shape of the spectral coefficients, without batch axes."""
        return tuple(self.singular_values.shape[int(self.per_image) :])

    def inverse_values(self, like: Tensor, *, cutoff: float = 1e-3) -> Tensor:
        """``1/s``, and zero where ``s`` is at or below this fraction of the largest (of each image).

        Args:
            like: gives dtype and device.
            cutoff: the fraction.

        Returns:
            Of the shape of :attr:`singular_values`.
        """
        s = self.singular_values.to(like)
        largest = s.amax(tuple(range(int(self.per_image), s.ndim)), keepdim=True)
        keep = s > cutoff * largest
        return keep / s.masked_fill(~keep, 1.0)

    @abc.abstractmethod
    def to_spectral(self, x: Tensor) -> Tensor:
        """``V^T x``: ``(..., *domain_shape) -> (..., *spectral_shape)``."""

    @abc.abstractmethod
    def from_spectral(self, coefficients: Tensor) -> Tensor:
        """``V c``: ``(..., *spectral_shape) -> (..., *domain_shape)``, the inverse of :meth:`to_spectral`."""

    @abc.abstractmethod
    def data_to_spectral(self, y: Tensor) -> Tensor:
        """``U^T y``: ``(..., *range_shape) -> (..., *spectral_shape)``, zero where the singular value is zero."""

    @abc.abstractmethod
    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        """``U c``: ``(..., *spectral_shape) -> (..., *range_shape)``; ignores entries of zero singular value."""

    def pseudo_inverse(self, y: Tensor, *, cutoff: float = 1e-3) -> Tensor:
        """Truncated Moore-Penrose inverse ``V diag(1/s) U^T y``.

        Args:
            y: ``(..., *range_shape)``.
            cutoff: singular values at or below this fraction of the largest are treated as zero.

        Returns:
            ``(..., *domain_shape)``: the minimum-norm least-squares solution where the cut-off removes nothing.
        """
        return self.from_spectral(self.inverse_values(y, cutoff=cutoff) * self.data_to_spectral(y))


@runtime_checkable
class Decomposable(Protocol):
    """An operator with a singular value decomposition: ``isinstance(operator, Decomposable)``."""

    def svd(self) -> SingularValueDecomposition:
        """The decomposition, on the device of the operator."""
        ...


class DiagonalSVD(SingularValueDecomposition):
    """Decomposition of an entrywise product with non-negative weights: both bases are the identity."""

    def to_spectral(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        """The coefficients themselves."""
        return coefficients

    def data_to_spectral(self, y: Tensor) -> Tensor:
        """``y`` where the weight is positive, zero elsewhere."""
        return y * (self.singular_values > 0).to(y)

    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        """The coefficients where the weight is positive, zero elsewhere."""
        return coefficients * (self.singular_values > 0).to(coefficients)
