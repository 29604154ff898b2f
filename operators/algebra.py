"""Operators made of operators: adjoints, multiples, sums, compositions and stacks.

They are built by ``A.T``, ``2 * A``, ``A + B``, ``A @ B`` and ``A | B``. Each has the exact adjoint if its parts do.
Hooks such as ``features`` and ``first_guess`` are passed on only where they still hold. A multiple divides the data by
its factor and asks its base. Other compositions use the defaults of :class:`LinearOperator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.operators.base import Diagnosis, LinearOperator, Operator, RegularisationHint, RowPick
from deft_ct.operators.svd import Decomposable, SingularValueDecomposition

__all__ = ["Adjoint", "Stack", "add", "compose", "scale", "stack"]


class Adjoint(LinearOperator):
    """``A^T`` as an operator.

    Args:
        base: the operator ``A``.
    """

    def __init__(self, base: LinearOperator) -> None:
        super().__init__(base.range_shape, base.domain_shape)
        self.base = base
        self.matched = base.matched

    @property
    def images(self) -> int | None:
        """See :attr:`Operator.images`."""
        return self.base.images

    def select_images(self, pick: RowPick) -> LinearOperator:
        """The same of the parts' operators of other images."""
        return _linear(self.base.select_images(pick)).T

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self.base.adjoint(x)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.base(y)

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        """``A`` itself."""
        return self.base

    def norm(self, *, iterations: int = 50, tolerance: float = 1e-5) -> float:
        """The norm of ``A``."""
        return self.base.norm(iterations=iterations, tolerance=tolerance)

    def norms(self, *, iterations: int = 50, tolerance: float = 1e-5) -> list[float]:
        """The norms of ``A``."""
        return self.base.norms(iterations=iterations, tolerance=tolerance)

    def describe(self) -> dict[str, Any]:
        """The description of ``A`` under ``of``."""
        return super().describe() | {"of": self.base.describe()}


class Scaled(LinearOperator):
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
    def images(self) -> int | None:
        """See :attr:`Operator.images`."""
        return self.base.images

    def select_images(self, pick: RowPick) -> LinearOperator:
        """The same of the parts' operators of other images."""
        return scale(_linear(self.base.select_images(pick)), self.factor)

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

    def refined(self, factor: int) -> LinearOperator:
        """The multiple of the finer twin of ``A``."""
        return scale(_linear(self.base.refined(factor)), self.factor)

    def describe(self) -> dict[str, Any]:
        """The factor, and the description of ``A`` under ``of``."""
        return super().describe() | {"factor": self.factor, "of": self.base.describe()}

    def diagnose(self, y: Tensor) -> Diagnosis:
        """What ``A`` finds in ``y / factor``."""
        return self.base.diagnose(y / self.factor) if self.factor else super().diagnose(y)

    def features(self, y: Tensor, weights: Tensor | None) -> Tensor:
        """What ``A`` says of ``y / factor``, with the weights of these data."""
        return self.base.features(*self._undone(y, weights)) if self.factor else super().features(y, weights)

    def regularisation_hint(self, y: Tensor, weights: Tensor | None) -> RegularisationHint | None:
        """What ``A`` says of ``y / factor``, with the weights of these data."""
        return self.base.regularisation_hint(*self._undone(y, weights)) if self.factor else None

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


class Sum(LinearOperator):
    """``A + B`` or ``A - B``."""

    def __init__(self, left: LinearOperator, right: LinearOperator, sign: int) -> None:
        super().__init__(left.domain_shape, left.range_shape)
        self.left, self.right, self.sign = left, right, sign
        self.matched = left.matched and right.matched

    def extra_repr(self) -> str:
        """The sign of the second term, for ``print``."""
        return f"sign={self.sign:+d}"

    @property
    def images(self) -> int | None:
        """See :attr:`Operator.images`."""
        return _images(self.left, self.right)

    def select_images(self, pick: RowPick) -> LinearOperator:
        """The same of the parts' operators of other images."""
        return add(self.left.select_images(pick), self.right.select_images(pick), sign=self.sign)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return torch.add(self.left(x), self.right(x), alpha=self.sign)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return torch.add(self.left.adjoint(y), self.right.adjoint(y), alpha=self.sign)

    def refined(self, factor: int) -> LinearOperator:
        """The sum of the finer twins."""
        return add(self.left.refined(factor), self.right.refined(factor), sign=self.sign)

    def describe(self) -> dict[str, Any]:
        """The sign of the second term, and both descriptions under ``of``."""
        return super().describe() | {"sign": self.sign, "of": [self.left.describe(), self.right.describe()]}


class Composition(LinearOperator):
    """``A B`` of linear operators."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        super().__init__(inner.domain_shape, outer.range_shape)
        self.outer, self.inner = outer, inner
        self.matched = outer.matched and inner.matched

    @property
    def images(self) -> int | None:
        """See :attr:`Operator.images`."""
        return _images(self.outer, self.inner)

    def select_images(self, pick: RowPick) -> LinearOperator:
        """The same of the parts' operators of other images."""
        return _linear(compose(self.outer.select_images(pick), self.inner.select_images(pick)))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def refined(self, factor: int) -> Operator:
        """``A`` after the finer twin of ``B``."""
        return compose(self.outer, self.inner.refined(factor))

    def describe(self) -> dict[str, Any]:
        """Both descriptions under ``of``, the operator that is applied last first."""
        return super().describe() | {"of": [self.outer.describe(), self.inner.describe()]}


class NonlinearComposition(Operator):
    """``A(B(x))`` where one of the two is nonlinear."""

    def __init__(self, outer: Operator, inner: Operator) -> None:
        super().__init__(inner.domain_shape, outer.range_shape)
        self.outer, self.inner = outer, inner

    @property
    def images(self) -> int | None:
        """See :attr:`Operator.images`."""
        return _images(self.outer, self.inner)

    def select_images(self, pick: RowPick) -> Operator:
        """The same of the parts' operators of other images."""
        return compose(self.outer.select_images(pick), self.inner.select_images(pick))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        out: Tensor = self.outer(self.inner(x))
        return out

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """The chain rule, ``J_B(x)^T J_A(B(x))^T v``; see :meth:`Operator.vjp`."""
        with torch.no_grad():
            between = self.inner(x)
        return self.inner.vjp(x, self.outer.vjp(between, v))

    def refined(self, factor: int) -> Operator:
        """``A`` after the finer twin of ``B``."""
        return compose(self.outer, self.inner.refined(factor))

    def describe(self) -> dict[str, Any]:
        """Both descriptions under ``of``, the operator that is applied last first."""
        return super().describe() | {"of": [self.outer.describe(), self.inner.describe()]}


class Stack(LinearOperator):
    """Several operators on the same image, with their data concatenated; see :func:`stack`.

    Args:
        operators: at least one, of equal domains.
        axis: axis of the data along which they are concatenated, counted without batch axes.

    Attributes:
        parts: the operators.
        axis: the axis, not negative.
    """

    def __init__(self, operators: Sequence[LinearOperator], axis: int = 0) -> None:
        first = operators[0]
        self_shape = list(first.range_shape)
        self_shape[axis] = sum(op.range_shape[axis] for op in operators)
        super().__init__(first.domain_shape, tuple(self_shape))
        self.parts = nn.ModuleList(operators)
        self.axis = axis
        self.matched = all(op.matched for op in operators)

    def extra_repr(self) -> str:
        """The axis, for ``print``."""
        return f"axis={self.axis}"

    @property
    def operators(self) -> list[LinearOperator]:
        """The stacked operators."""
        return [_linear(op) for op in self.parts]

    def split(self, y: Tensor) -> tuple[Tensor, ...]:
        """The data of each operator, from ``(..., *range_shape)``."""
        lengths = [op.range_shape[self.axis] for op in self.operators]
        return y.split(lengths, self.axis - len(self.range_shape))

    @property
    def images(self) -> int | None:
        """See :attr:`Operator.images`."""
        return _images(*self.operators)

    def select_images(self, pick: RowPick) -> LinearOperator:
        """The same of the parts' operators of other images."""
        return stack([_linear(op.select_images(pick)) for op in self.operators], axis=self.axis)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self._joined([op(x) for op in self.operators])

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        first, *rest = (op.adjoint(part) for op, part in zip(self.operators, self.split(y), strict=True))
        return sum(rest, first)

    def normal(self, x: Tensor) -> Tensor:
        """The sum of ``A^T A x``."""
        first, *rest = (op.normal(x) for op in self.operators)
        return sum(rest, first)

    def refined(self, factor: int) -> LinearOperator:
        """The stack of the finer twins."""
        return stack([_linear(op.refined(factor)) for op in self.operators], axis=self.axis)

    def describe(self) -> dict[str, Any]:
        """The axis, and all descriptions under ``of``."""
        return super().describe() | {"axis": self.axis, "of": [op.describe() for op in self.operators]}

    def diagnose(self, y: Tensor) -> Diagnosis:
        """What each operator finds in its part of the data: its record under ``parts``, and all warnings."""
        found = [op.diagnose(part) for op, part in zip(self.operators, self.split(y), strict=True)]
        warnings = tuple(dict.fromkeys(warning for one in found for warning in one.warnings))
        return Diagnosis({"parts": [one.record for one in found]}, warnings)

    def nominal_weights(self, y: Tensor) -> Tensor:
        """Those of each operator for its part of the data."""
        return self._joined([op.nominal_weights(part) for op, part in zip(self.operators, self.split(y), strict=True)])

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), self.axis - len(self.range_shape))


def add(left: Any, right: Any, *, sign: int = 1) -> LinearOperator:
    """``left + sign * right``.

    Raises:
        TypeError: one of the two is not a linear operator.
        ValueError: their shapes differ.
    """
    word = "add" if sign > 0 else "subtract"
    for one in (left, right):
        if not isinstance(one, LinearOperator):
            raise TypeError(
                f"cannot {word} {_named(left)} and {_named(right)}: {type(one).__name__} is not a linear operator"
            )
    if (left.domain_shape, left.range_shape) != (right.domain_shape, right.range_shape):
        raise ValueError(f"cannot {word} {_named(left)} and {_named(right)}: both shapes must be equal")
    return Sum(left, right, sign)


def scale(operator: LinearOperator, factor: Any, *, inverse: bool = False) -> LinearOperator:
    """``factor * operator``, or ``operator / factor`` with ``inverse``.

    Raises:
        TypeError: the factor is not a real number.
        ValueError: the factor is not finite, or division by zero.
    """
    if isinstance(factor, Operator):
        raise TypeError(
            f"cannot multiply {_named(operator)} and {_named(factor)} with *: write A @ B for the operator that "
            "applies B first"
        )
    if not isinstance(factor, Real) or isinstance(factor, bool):
        raise TypeError(
            f"an operator is scaled by a real number, got {type(factor).__name__}; write float(value) for a tensor of "
            "one element, or A(value * x) to weight an image"
        )
    value = float(factor)
    if inverse:
        value = 1 / value if value else math.inf
    if not math.isfinite(value) or (inverse and value == 0):
        raise ValueError(f"cannot {'divide' if inverse else 'multiply'} an operator by {factor}: it must stay finite")
    if isinstance(operator, Scaled):  # -(-A) and 2 * (3 * A) stay one multiple
        value *= operator.factor
        operator = operator.base
    return (ScaledDecomposable if isinstance(operator, Decomposable) else Scaled)(operator, value)


def compose(outer: Operator, inner: Any) -> Operator:
    """The operator that applies ``inner`` first; linear if both are.

    Raises:
        TypeError: ``inner`` is not an operator.
        ValueError: the range of ``inner`` is not the domain of ``outer``.
    """
    if not isinstance(inner, Operator):
        raise TypeError(f"{_named(outer)} @ {type(inner).__name__}: the right side must be a tensor or an operator")
    if outer.domain_shape != inner.range_shape:
        raise ValueError(
            f"cannot compose {type(outer).__name__} (domain {outer.domain_shape}) with {type(inner).__name__} "
            f"(range {inner.range_shape}): the shapes must be equal"
        )
    if isinstance(outer, LinearOperator) and isinstance(inner, LinearOperator):
        return Composition(outer, inner)
    return NonlinearComposition(outer, inner)


def stack(operators: Sequence[LinearOperator], *, axis: int = 0) -> LinearOperator:
    """One operator with the data of several on the same image: ``x -> concatenate(A x, B x, ...)``.

    ``A | B`` is ``stack([A, B])``. It is what pylops calls ``VStack``, and mrpro writes ``A & B``; mrpro's ``A | B``,
    which takes an image for each operator, does not exist here, because all methods reconstruct one image.

    Args:
        operators: at least one linear operator.
        axis: axis of the data to concatenate along, counted without batch axes: for sinograms ``(views, detectors)``
            0 means more views. The other axes must be equal.

    Returns:
        An operator with the adjoint ``A^T y_1 + B^T y_2 + ...``.

    Raises:
        TypeError: something is not a linear operator.
        ValueError: no operator, no such axis, or shapes that do not fit.
    """
    parts: list[LinearOperator] = []
    for one in operators:
        if not isinstance(one, LinearOperator):
            raise TypeError(f"only linear operators can be stacked, got {_named(one)}")
        parts += one.operators if isinstance(one, Stack) and one.axis == axis else [one]
    if not parts:
        raise ValueError("stack needs at least one operator")
    first, ndim = parts[0], len(parts[0].range_shape)
    if not -ndim <= axis < ndim:
        raise ValueError(f"stack: axis {axis} is not one of the data of {_named(first)}")
    axis %= ndim
    for one in parts[1:]:
        same_rest = len(one.range_shape) == ndim and all(
            a == b for n, (a, b) in enumerate(zip(first.range_shape, one.range_shape, strict=True)) if n != axis
        )
        if one.domain_shape != first.domain_shape or not same_rest:
            raise ValueError(
                f"cannot stack {_named(first)} and {_named(one)}: the domains must be equal, and the ranges must be "
                f"equal apart from axis {axis}"
            )
    return Stack(parts, axis)


def _named(value: Any) -> str:
    name = type(value).__name__
    return f"{name} {value.domain_shape} -> {value.range_shape}" if isinstance(value, Operator) else name


def _linear(value: Any) -> LinearOperator:
    assert isinstance(value, LinearOperator)
    return value


def _images(*parts: Operator) -> int | None:
    """The number of images that the parts have parameters for, which all of them with such parameters share."""
    return next((part.images for part in parts if part.images is not None), None)
