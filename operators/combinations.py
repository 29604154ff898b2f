"""Operators made of operators: adjoints, sums, compositions and stacks.

They are built by ``A.T``, ``A + B``, ``A @ B`` and ``A | B``, see :mod:`deft_ct.operators.algebra`. Each has the exact
adjoint if its parts do. Of the hooks, such as ``features``, those are passed on that still hold.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.operators.base import Operator, RowPick
from deft_ct.operators.findings import Diagnosis
from deft_ct.operators.image_values import ImageValues
from deft_ct.operators.linear import LinearOperator


class Combination(Operator):
    """The base of all combinations: their parts hold the parameters of each image."""

    @property
    @abc.abstractmethod
    def operands(self) -> list[Any]:
        """The operators that this one is made of."""

    @abc.abstractmethod
    def rebuilt(self, operands: Sequence[Any]) -> Operator:
        """The same combination of other operators."""

    @property
    def images(self) -> int | None:
        """How many images the operands have parameters for; all that have such parameters share the number."""
        return next((one.images for one in self.operands if one.images is not None), None)

    def select_images(self, pick: RowPick) -> Operator:
        """The same combination of the operands of other images."""
        return self.rebuilt([one.select_images(pick) for one in self.operands])

    @property
    def grid_spacing(self) -> tuple[float, ...] | None:
        """That of the operand which is applied to the image."""
        spacing: tuple[float, ...] | None = self.operands[-1].grid_spacing
        return spacing

    @property
    def image_values(self) -> ImageValues:
        """Those of the operand which is applied to the image."""
        values: ImageValues = self.operands[-1].image_values
        return values

    def refined(self, factor: int) -> Operator:
        """The same combination of the finer twins of the operands.

        Raises:
            ValueError: an operand has no finer twin.
        """
        return self.rebuilt([one.refined(factor) for one in self.operands])


def named(value: Any) -> str:
    """An operator by its class and shapes, any other value by its class; for messages."""
    name = type(value).__name__
    return f"{name} {value.domain_shape} -> {value.range_shape}" if isinstance(value, Operator) else name


class Adjoint(Combination, LinearOperator):
    """``A^T`` as an operator.

    Args:
        base: the operator ``A``.
    """

    def __init__(self, base: LinearOperator) -> None:
        super().__init__(base.range_shape, base.domain_shape)
        self.base = base
        self.matched = base.matched

    @property
    def operands(self) -> list[Any]:
        """See :attr:`Combination.operands`."""
        return [self.base]

    def rebuilt(self, operands: Sequence[Any]) -> Operator:
        """See :meth:`Combination.rebuilt`."""
        return Adjoint(*operands)

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

    @property
    def grid_spacing(self) -> tuple[float, ...] | None:
        """None: the image of an adjoint is a set of data."""
        return None

    @property
    def image_values(self) -> ImageValues:
        """The general ones: the image of an adjoint is a set of data."""
        return ImageValues()

    def refined(self, factor: int) -> Operator:
        """Refused: the image of an adjoint is a set of data, whose grid is not a picture."""
        return LinearOperator.refined(self, factor)

    def describe(self) -> dict[str, Any]:
        """The description of ``A`` under ``of``."""
        return super().describe() | {"of": self.base.describe()}


class Sum(Combination, LinearOperator):
    """``A + B`` or ``A - B``."""

    def __init__(self, left: LinearOperator, right: LinearOperator, sign: int) -> None:
        if (left.domain_shape, left.range_shape) != (right.domain_shape, right.range_shape):
            word = "add" if sign > 0 else "subtract"
            raise ValueError(f"cannot {word} {named(left)} and {named(right)}: both shapes must be equal")
        super().__init__(left.domain_shape, left.range_shape)
        self.left, self.right, self.sign = left, right, sign
        self.matched = left.matched and right.matched

    def extra_repr(self) -> str:
        """The sign of the second term, for ``print``."""
        return f"sign={self.sign:+d}"

    @property
    def operands(self) -> list[Any]:
        """See :attr:`Combination.operands`."""
        return [self.left, self.right]

    @property
    def grid_spacing(self) -> tuple[float, ...] | None:
        """That of the first operand which knows it: all have the same images."""
        return next((one.grid_spacing for one in self.operands if one.grid_spacing is not None), None)

    def rebuilt(self, operands: Sequence[Any]) -> Operator:
        """See :meth:`Combination.rebuilt`."""
        left, right = operands
        return Sum(left, right, self.sign)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return torch.add(self.left(x), self.right(x), alpha=self.sign)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return torch.add(self.left.adjoint(y), self.right.adjoint(y), alpha=self.sign)

    def describe(self) -> dict[str, Any]:
        """The sign of the second term, and both descriptions under ``of``."""
        return super().describe() | {"sign": self.sign, "of": [self.left.describe(), self.right.describe()]}


def check_composition(outer: Operator, inner: Operator) -> None:
    """Raise a ValueError unless the range of ``inner`` is the domain of ``outer``."""
    if outer.domain_shape != inner.range_shape:
        raise ValueError(
            f"cannot compose {type(outer).__name__} (domain {outer.domain_shape}) with {type(inner).__name__} "
            f"(range {inner.range_shape}): the shapes must be equal"
        )


class Composition(Combination, LinearOperator):
    """``A B`` of linear operators."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        check_composition(outer, inner)
        super().__init__(inner.domain_shape, outer.range_shape)
        self.outer, self.inner = outer, inner
        self.matched = outer.matched and inner.matched

    @property
    def operands(self) -> list[Any]:
        """See :attr:`Combination.operands`."""
        return [self.outer, self.inner]

    def rebuilt(self, operands: Sequence[Any]) -> Operator:
        """See :meth:`Combination.rebuilt`."""
        return Composition(*operands)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def refined(self, factor: int) -> Operator:
        """``A`` after the finer twin of ``B``."""
        return self.rebuilt([self.outer, self.inner.refined(factor)])

    def describe(self) -> dict[str, Any]:
        """Both descriptions under ``of``, the operator that is applied last first."""
        return super().describe() | {"of": [self.outer.describe(), self.inner.describe()]}


class NonlinearComposition(Combination):
    """``A(B(x))`` where one of the two is nonlinear."""

    def __init__(self, outer: Operator, inner: Operator) -> None:
        check_composition(outer, inner)
        super().__init__(inner.domain_shape, outer.range_shape)
        self.outer, self.inner = outer, inner

    @property
    def operands(self) -> list[Any]:
        """See :attr:`Combination.operands`."""
        return [self.outer, self.inner]

    def rebuilt(self, operands: Sequence[Any]) -> Operator:
        """See :meth:`Combination.rebuilt`."""
        return NonlinearComposition(*operands)

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
        return self.rebuilt([self.outer, self.inner.refined(factor)])

    def describe(self) -> dict[str, Any]:
        """Both descriptions under ``of``, the operator that is applied last first."""
        return super().describe() | {"of": [self.outer.describe(), self.inner.describe()]}


class Stack(Combination, LinearOperator):
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
    def operands(self) -> list[Any]:
        """See :attr:`Combination.operands`."""
        return list(self.parts)

    @property
    def grid_spacing(self) -> tuple[float, ...] | None:
        """That of the first operand which knows it: all have the same images."""
        return next((one.grid_spacing for one in self.operands if one.grid_spacing is not None), None)

    def rebuilt(self, operands: Sequence[Any]) -> Operator:
        """See :meth:`Combination.rebuilt`."""
        return Stack(operands, self.axis)

    def split(self, y: Tensor) -> tuple[Tensor, ...]:
        """The data of each operator, from ``(..., *range_shape)``."""
        lengths = [op.range_shape[self.axis] for op in self.operands]
        return y.split(lengths, self.axis - len(self.range_shape))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self._joined([op(x) for op in self.operands])

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        first, *rest = (op.adjoint(part) for op, part in zip(self.operands, self.split(y), strict=True))
        return sum(rest, first)

    def normal(self, x: Tensor) -> Tensor:
        """The sum of ``A^T A x``."""
        first, *rest = (op.normal(x) for op in self.operands)
        return sum(rest, first)

    def describe(self) -> dict[str, Any]:
        """The axis, and all descriptions under ``of``."""
        return super().describe() | {"axis": self.axis, "of": [op.describe() for op in self.operands]}

    def diagnose(self, y: Tensor, weights: Tensor | None = None) -> Diagnosis:
        """What each operator finds in its part of the data: its record under ``parts``, and all findings."""
        parts = self.split(y)
        of_parts = [None] * len(parts) if weights is None else self.split(weights)
        found = [op.diagnose(*given) for op, *given in zip(self.operands, parts, of_parts, strict=True)]
        findings = tuple(dict.fromkeys(finding for one in found for finding in one.findings))
        repaired = None
        if any(one.repaired is not None for one in found):
            repaired = self._joined([
                part if one.repaired is None else one.repaired for one, part in zip(found, parts, strict=True)
            ])  # fmt: skip
        return Diagnosis({"parts": [one.record for one in found]}, findings, repaired)

    def unseen(self) -> Tensor | None:
        """What none of the operators sees."""
        masks = [op.unseen() for op in self.operands]
        known = [mask for mask in masks if mask is not None]
        both = torch.stack(known).all(0) if len(known) == len(masks) else None
        return both if both is not None and bool(both.any()) else None

    def nominal_weights(self, y: Tensor) -> Tensor:
        """Those of each operator for its part of the data."""
        return self._joined([op.nominal_weights(part) for op, part in zip(self.operands, self.split(y), strict=True)])

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), self.axis - len(self.range_shape))
