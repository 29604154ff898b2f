"""Multiples of an operator, ``2 * A``: they keep what the operator says of itself and its singular values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from deft_ct.operators.base import Operator
from deft_ct.operators.combinations import Combination
from deft_ct.operators.findings import Diagnosis, RegularisationHint
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.row_order import RowOrder
from deft_ct.operators.svd import Decomposable, SingularValueDecomposition


class Scaled(Combination, LinearOperator):
    """``factor * A``.

    Its data are the data of ``A`` times the factor, so methods of ``A`` that use data receive ``y / factor``.
    """

    base: LinearOperator
    factor: float

    def __init__(self, base: LinearOperator, factor: float) -> None:
        super().__init__(base.domain_shape, base.range_shape)
        self.base, self.factor = base, factor
        self.matched = base.matched

    def extra_repr(self) -> str:
        """The factor, for ``print``."""
        return f"factor={self.factor}"

    @property
    def operands(self) -> list[Any]:
        """See :attr:`Combination.operands`."""
        return [self.base]

    def rebuilt(self, operands: Sequence[Any]) -> Operator:
        """See :meth:`Combination.rebuilt`."""
        (base,) = operands
        return multiple(base, self.factor)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self.factor * self.base(x)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.factor * self.base.adjoint(y)

    def normal(self, x: Tensor) -> Tensor:
        """``factor^2 A^T A x``."""
        return self.factor**2 * self.base.normal(x)

    def norm(self, *, iterations: int = 50, tolerance: float = 1e-5) -> float:
        """``|factor|`` times the norm of ``A``."""
        return abs(self.factor) * self.base.norm(iterations=iterations, tolerance=tolerance)

    def norms(self, *, iterations: int = 50, tolerance: float = 1e-5) -> list[float]:
        """``|factor|`` times the norms of ``A``."""
        return [abs(self.factor) * norm for norm in self.base.norms(iterations=iterations, tolerance=tolerance)]

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """The pseudo-inverse of ``A`` over the factor; zero for a factor of zero."""
        return self.base.pseudo_inverse(y) * (1 / self.factor if self.factor else 0.0)

    def describe(self) -> dict[str, Any]:
        """The factor, and the description of ``A`` under ``of``."""
        return super().describe() | {"factor": self.factor, "of": self.base.describe()}

    def diagnose(self, y: Tensor, weights: Tensor | None = None) -> Diagnosis:
        """What ``A`` finds in ``y / factor``, with the weights of these data."""
        if not self.factor:
            return super().diagnose(y, weights)
        found = self.base.diagnose(*self._undone(y, weights))
        return found if found.repaired is None else replace(found, repaired=found.repaired * self.factor)

    def row_order(self) -> RowOrder | None:
        """That of ``A``."""
        return self.base.row_order()

    def features(self, y: Tensor, weights: Tensor | None) -> Tensor:
        """What ``A`` says of ``y / factor``, with the weights of these data."""
        return self.base.features(*self._undone(y, weights)) if self.factor else super().features(y, weights)

    def regularisation_hint(self, y: Tensor, weights: Tensor | None) -> RegularisationHint | None:
        """What ``A`` says of ``y / factor``, with the weights of these data."""
        return self.base.regularisation_hint(*self._undone(y, weights)) if self.factor else None

    def unseen(self) -> Tensor | None:
        """That of ``A``."""
        return self.base.unseen()

    def nominal_weights(self, y: Tensor) -> Tensor:
        """Those that make the fit the same as that of ``A`` to ``y / factor``."""
        if not self.factor:
            return super().nominal_weights(y)
        return self.base.nominal_weights(y / self.factor) / self.factor**2

    def first_guess(self, y: Tensor) -> Tensor:
        """That of ``A`` for ``y / factor``."""
        return self.base.first_guess(y / self.factor) if self.factor else super().first_guess(y)

    def preconditioner(self, like: Tensor) -> Callable[[Tensor], Tensor] | None:
        """That of ``A`` over ``factor^2``."""
        inner = self.base.preconditioner(like) if self.factor else None
        return None if inner is None else lambda x: inner(x) / self.factor**2

    def _undone(self, y: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return y / self.factor, None if weights is None else weights * self.factor**2


class ScaledDecomposable(Scaled):
    """``factor * A`` of an operator with a singular value decomposition."""

    def svd(self) -> SingularValueDecomposition:
        """That of ``A`` with singular values times ``|factor|``; the sign goes to the basis of the data."""
        assert isinstance(self.base, Decomposable)
        return _ScaledSVD(self.base.svd(), self.factor)


class _ScaledSVD(SingularValueDecomposition):
    def __init__(self, base: SingularValueDecomposition, factor: float) -> None:
        super().__init__(abs(factor) * base.singular_values, per_image=base.per_image)
        self._base, self._sign = base, float((factor > 0) - (factor < 0))

    def to_spectral(self, x: Tensor) -> Tensor:
        return self._base.to_spectral(x)

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        return self._base.from_spectral(coefficients)

    def data_to_spectral(self, y: Tensor) -> Tensor:
        return self._sign * self._base.data_to_spectral(y)

    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        return self._sign * self._base.data_from_spectral(coefficients)


def multiple(base: LinearOperator, factor: float) -> Scaled:
    """``factor * base``, with a singular value decomposition if the base has one."""
    return (ScaledDecomposable if isinstance(base, Decomposable) else Scaled)(base, factor)
