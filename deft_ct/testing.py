"""Checks that every measurement operator has to pass, for our own tests and for tests of users' operators.

Each one raises AssertionError with the measured error, and returns that error otherwise.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from deft_ct.operators.base import Operator
from deft_ct.operators.linear import LinearOperator

__all__ = ["assert_adjoint", "assert_batch_invariant", "assert_gradients", "assert_linear"]


def assert_adjoint(
    op: LinearOperator, *, rtol: float | None = None, dtype: torch.dtype = torch.float64, seed: int = 0
) -> float:
    """Check ``<A x, y> = <x, A^T y>``.

    The error is relative to ``|A x| |y|`` or ``|x| |A^T y|``, whichever is larger: of a single datum, the first can be
    tiny by chance, and then shows the rounding of ``A x`` alone. Three pairs are tried: normal ones, uniform ones in
    [0, 1), whose inner product does not vanish by chance, and ``y = A x``, for which it is as large as it can be.

    Args:
        op: the operator.
        rtol: largest error; 1e-5 for float32 and 1e-12 for float64 if left out.
        dtype: type to compute in; the inner products are taken in float64.
        seed: of the random inputs.

    Returns:
        The largest relative error.
    """
    limit = _default_rtol(dtype) if rtol is None else rtol
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for kind in ("normal", "uniform", "image"):
        x = _random(op.domain_shape, dtype, generator, uniform=kind != "normal")
        y = op(x).detach() if kind == "image" else _random(op.range_shape, dtype, generator, uniform=kind == "uniform")
        ax, aty = op(x).detach().double(), op.adjoint(y).detach().double()
        left, right = float((ax * y.double()).sum()), float((x.double() * aty).sum())
        sizes = float(ax.norm() * y.double().norm()), float(x.double().norm() * aty.norm())
        scale = max(*sizes, torch.finfo(torch.float64).tiny)
        error = abs(left - right) / scale
        if not error <= limit:
            raise AssertionError(
                f"{type(op).__name__}: <A x, y> = {left:.12g} but <x, A^T y> = {right:.12g}: relative error "
                f"{error:.3g} > {limit:.3g} ({kind} input, {dtype})"
            )
        worst = max(worst, error)
    return worst


def assert_linear(
    op: LinearOperator, *, rtol: float | None = None, dtype: torch.dtype = torch.float64, seed: int = 0
) -> float:
    """Check that the operator and its adjoint are linear: ``A(a x + b z) = a A x + b A z``.

    Args:
        op: the operator.
        rtol: largest error relative to the norm of the result; 1e-5 for float32, 1e-12 for float64 if left out.
        dtype: type to compute in.
        seed: of the random inputs.

    Returns:
        The largest relative error.
    """
    limit = _default_rtol(dtype) if rtol is None else rtol
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for what, apply, shape in (("operator", op, op.domain_shape), ("adjoint", op.adjoint, op.range_shape)):
        x, z = (_random(shape, dtype, generator) for _ in range(2))
        whole = apply(1.5 * x - 0.75 * z).detach()
        parts = (1.5 * apply(x) - 0.75 * apply(z)).detach()
        error = float((whole - parts).norm() / parts.norm().clamp_min(torch.finfo(dtype).tiny))
        if not error <= limit:
            raise AssertionError(
                f"{type(op).__name__}: the {what} is not linear: relative error {error:.3g} > {limit:.3g}"
            )
        worst = max(worst, error)
    return worst


def assert_gradients(
    op: Operator, *, second_order: bool = True, forward_mode: bool = True, scale: float = 1.0, seed: int = 0
) -> None:
    """Check derivatives against finite differences in float64, for the operator and, if it is linear, its adjoint.

    Args:
        op: the operator; keep its shapes small.
        second_order: also check the second derivative.
        forward_mode: also check forward-mode differentiation.
        scale: size of the random input.
        seed: of the random inputs.

    Raises:
        AssertionError: a derivative is wrong or missing.
    """
    generator = torch.Generator().manual_seed(seed)
    maps: list[tuple[str, Any, tuple[int, ...]]] = [("operator", op, op.domain_shape)]
    if isinstance(op, LinearOperator):
        maps.append(("adjoint", op.adjoint, op.range_shape))
    for what, apply, shape in maps:
        x = (scale * _random((2, *shape), torch.float64, generator)).requires_grad_()
        try:
            with warnings.catch_warnings():
                # PyTorch compiles its decompositions the first time that forward mode runs, and warns about itself.
                warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
                _check_gradients(apply, x, second_order=second_order, forward_mode=forward_mode)
        except RuntimeError as error:  # GradcheckError, or an operator that is not differentiable
            raise AssertionError(f"{type(op).__name__}: the {what} fails the gradient check: {error}") from error


def _check_gradients(apply: Any, x: Tensor, *, second_order: bool, forward_mode: bool) -> None:
    gradcheck(apply, x, check_forward_ad=forward_mode, fast_mode=True)
    if second_order:
        gradgradcheck(apply, x, fast_mode=True)


def assert_batch_invariant(op: LinearOperator, *, batch: int = 5, dtype: torch.dtype = torch.float32) -> None:
    """Check that a batch gives bit for bit what its members give one by one, forward and adjoint.

    Args:
        op: the operator.
        batch: how many inputs.
        dtype: type to compute in.
    """
    generator = torch.Generator().manual_seed(0)
    for what, apply, shape in (("operator", op, op.domain_shape), ("adjoint", op.adjoint, op.range_shape)):
        x = _random((batch, *shape), dtype, generator)
        whole = apply(x).detach()
        for i in range(batch):
            if not torch.equal(whole[i], apply(x[i]).detach()):
                raise AssertionError(f"{type(op).__name__}: member {i} of a batch of {batch} differs in the {what}")


def _random(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, *, uniform: bool = False) -> Tensor:
    draw = torch.rand if uniform else torch.randn
    return draw(shape, dtype=dtype, generator=generator)


def _default_rtol(dtype: torch.dtype) -> float:
    return 1e-12 if dtype == torch.float64 else 1e-5
