"""Arithmetic of operators: the checks and choices behind ``A.T``, ``A + B``, ``2 * A``, ``A @ B`` and ``A | B``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from deft_ct.operators.base import Operator
from deft_ct.operators.combinations import Adjoint, Composition, NonlinearComposition, Stack, Sum, named
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.scaled import Scaled, multiple

__all__ = ["Adjoint", "Stack", "add", "compose", "scale", "stack"]


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
                f"cannot {word} {named(left)} and {named(right)}: {type(one).__name__} is not a linear operator"
            )
    return Sum(left, right, sign)


def scale(operator: LinearOperator, factor: Any, *, inverse: bool = False) -> LinearOperator:
    """``factor * operator``, or ``operator / factor`` with ``inverse``.

    Raises:
        TypeError: the factor is not a real number.
        ValueError: the factor is not finite, or division by zero.
    """
    if isinstance(factor, Operator):
        raise TypeError(
            f"cannot multiply {named(operator)} and {named(factor)} with *: write A @ B for the operator that "
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
    return multiple(operator, value)


def compose(outer: Operator, inner: Any) -> Operator:
    """The operator that applies ``inner`` first; linear if both are.

    Raises:
        TypeError: ``inner`` is not an operator.
        ValueError: the range of ``inner`` is not the domain of ``outer``.
    """
    if not isinstance(inner, Operator):
        raise TypeError(f"{named(outer)} @ {type(inner).__name__}: the right side must be a tensor or an operator")
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
            raise TypeError(f"only linear operators can be stacked, got {named(one)}")
        parts += one.operands if isinstance(one, Stack) and one.axis == axis else [one]
    if not parts:
        raise ValueError("stack needs at least one operator")
    first, ndim = parts[0], len(parts[0].range_shape)
    if not -ndim <= axis < ndim:
        raise ValueError(f"stack: axis {axis} is not one of the data of {named(first)}")
    axis %= ndim
    for one in parts[1:]:
        same_rest = len(one.range_shape) == ndim and all(
            a == b for n, (a, b) in enumerate(zip(first.range_shape, one.range_shape, strict=True)) if n != axis
        )
        if one.domain_shape != first.domain_shape or not same_rest:
            raise ValueError(
                f"cannot stack {named(first)} and {named(one)}: the domains must be equal, and the ranges must be "
                f"equal apart from axis {axis}"
            )
    return Stack(parts, axis)
