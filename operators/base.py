"""Measurement operators: the base classes that every forward model derives from.

A subclass of :class:`LinearOperator` writes two raw kernels and nothing else. Shape checks, leading batch axes,
autograd (any number of backward passes), forward-mode differentiation and ``vmap`` are written once, here.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.operators.solvers import conjugate_gradient

Kernel = Callable[[Tensor], Tensor]


class _Linear(torch.autograd.Function):
    """A linear map whose derivative is its transpose, again through this function: differentiable to any order."""

    @staticmethod
    def forward(kernel: Kernel, transpose: Kernel, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # line integrals do not survive half precision
            return kernel(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.kernel, ctx.transpose, _ = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _Linear.apply(ctx.transpose, ctx.kernel, grad)

    @staticmethod
    def jvp(ctx: Any, _kernel: None, _transpose: None, tangent: Tensor) -> Tensor:
        return _Linear.apply(ctx.kernel, ctx.transpose, tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], kernel: Kernel, transpose: Kernel, x: Tensor) -> tuple[Tensor, int]:
        # Kernels take any number of leading axes, so a mapped axis is one more of them.
        return _Linear.apply(kernel, transpose, x.movedim(in_dims[2], 0)), 0


@dataclass(frozen=True)
class Diagnosis:
    """What an operator finds suspicious in data.

    Attributes:
        record: JSON-ready findings, for run records.
        warnings: one sentence for each finding that should reach the user.
    """

    record: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegularisationHint:
    """How to set up a quick total-variation reconstruction.

    Attributes:
        strength: ``(B,)``, multiplies the usual strength.
        least_iterations: fewer do not converge.
    """

    strength: Tensor
    least_iterations: int


class Operator(nn.Module, abc.ABC):
    """A forward model ``y = A(x)``, possibly nonlinear.

    Args:
        domain_shape: trailing shape of ``x``, without batch axes.
        range_shape: trailing shape of ``y``, without batch axes.
    """

    def __init__(self, domain_shape: tuple[int, ...], range_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.domain_shape = tuple(int(n) for n in domain_shape)
        self.range_shape = tuple(int(n) for n in range_shape)

    @abc.abstractmethod
    def _forward_kernel(self, x: Tensor) -> Tensor:
        """Map ``(N, *domain_shape)`` to ``(N, *range_shape)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator.

        Args:
            x: ``(..., *domain_shape)`` with any leading batch axes; half precision is computed in float32.

        Returns:
            ``(..., *range_shape)``.

        Raises:
            TypeError: ``x`` is not a floating-point tensor.
            ValueError: the trailing shape of ``x`` is not :attr:`domain_shape`.
        """
        x = _checked(self, x, self.domain_shape, "input")
        batch = x.shape[: x.ndim - len(self.domain_shape)]
        with torch.autocast(x.device.type, enabled=False):
            return self._forward_kernel(x.reshape(-1, *self.domain_shape)).reshape(*batch, *self.range_shape)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Vector-Jacobian product ``J(x)^T v`` at ``x``; for a linear operator this is the adjoint.

        Args:
            x: ``(..., *domain_shape)``, the point of linearisation.
            v: ``(..., *range_shape)``.

        Returns:
            ``(..., *domain_shape)``; the result carries no graph with respect to ``x``.
        """
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (out,) = torch.autograd.grad(self(point), point, v.detach())
        return out

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A cheap approximate inverse, where the operator has one.

        Raises:
            TypeError: this operator declares none.
        """
        name = type(self).__name__
        raise TypeError(f"{name} has no pseudo-inverse; use a method that needs only the operator itself")

    def refined(self, factor: int) -> Operator:
        """This operator on a grid ``factor`` times finer, for simulating data with another model than that of the fit.

        Raises:
            ValueError: the operator has no finer twin.
        """
        raise ValueError(f"{type(self).__name__} cannot be simulated on a finer grid; use refine=1")

    def describe(self) -> dict[str, Any]:
        """JSON-ready description, for run records."""
        return {"operator": type(self).__name__}

    def diagnose(self, y: Tensor) -> Diagnosis:
        """Look for faults in noisy data ``(B, C, *range_shape)``; nothing by default."""
        return Diagnosis()

    def features(self, y: Tensor, weights: Tensor | None) -> Tensor:
        """A few numbers that tell a network which measurement it has.

        Args:
            y: data ``(B, C, *range_shape)``.
            weights: inverse variance of each entry, of the shape of ``y``; None for noise-free data.

        Returns:
            ``(B, F)`` float32, each of order one.

        Raises:
            ValueError: the operator has no such description.
        """
        raise ValueError(f"{type(self).__name__} has no features that a network could be conditioned on")

    def regularisation_hint(self, y: Tensor, weights: Tensor | None) -> RegularisationHint | None:
        """How to set up a quick total-variation reconstruction of data; None where nothing is known about it.

        Args:
            y: data ``(B, C, *range_shape)``.
            weights: inverse variance of each entry, of the shape of ``y``; None for noise-free data.
        """
        return None

    def nominal_weights(self, y: Tensor) -> Tensor:
        """Weights of noise-free data ``y`` in a penalised fit: one each, unless the physics suggests others."""
        return torch.ones_like(y)


class LinearOperator(Operator):
    """A linear forward model with its exact adjoint.

    Subclasses implement :meth:`_forward_kernel` and :meth:`_adjoint_kernel` on ``(N, *shape)`` tensors, without
    autograd in mind.

    Attributes:
        matched: whether the adjoint is exact (up to rounding). Solvers that need ``A^T`` warn when it is not.
    """

    matched: bool = True

    def __init__(self, domain_shape: tuple[int, ...], range_shape: tuple[int, ...]) -> None:
        super().__init__(domain_shape, range_shape)
        self._norm: float | None = None

    @abc.abstractmethod
    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        """Map ``(N, *range_shape)`` to ``(N, *domain_shape)``."""

    def _forward_batched(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.ndim - len(self.domain_shape)]
        return self._forward_kernel(x.reshape(-1, *self.domain_shape)).reshape(*batch, *self.range_shape)

    def _adjoint_batched(self, y: Tensor) -> Tensor:
        batch = y.shape[: y.ndim - len(self.range_shape)]
        return self._adjoint_kernel(y.reshape(-1, *self.range_shape)).reshape(*batch, *self.domain_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator to ``(..., *domain_shape)``; see :meth:`Operator.forward`."""
        x = _checked(self, x, self.domain_shape, "input")
        return _Linear.apply(self._forward_batched, self._adjoint_batched, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the adjoint ``A^T``.

        Args:
            y: ``(..., *range_shape)``.

        Returns:
            ``(..., *domain_shape)``.

        Raises:
            TypeError: ``y`` is not a floating-point tensor.
            ValueError: the trailing shape of ``y`` is not :attr:`range_shape`.
        """
        y = _checked(self, y, self.range_shape, "adjoint input")
        return _Linear.apply(self._adjoint_batched, self._forward_batched, y)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """``A^T v``: the Jacobian of a linear operator does not depend on ``x``."""
        return self.adjoint(v)

    def normal(self, x: Tensor) -> Tensor:
        """``A^T A x``; subclasses may override it with a faster route to the same result."""
        return self.adjoint(self(x))

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Least-squares solution of minimum norm by conjugate gradients; CT overrides it with FBP."""
        solution, _ = conjugate_gradient(self.normal, self.adjoint(y), batch_ndim=y.ndim - len(self.range_shape))
        return solution

    def first_guess(self, y: Tensor) -> Tensor:
        """Where an iteration starts: zero, or a smooth quick reconstruction; ``(N, *range_shape)`` to images."""
        return y.new_zeros(len(y), *self.domain_shape)

    def preconditioner(self, like: Tensor) -> Callable[[Tensor], Tensor] | None:
        """A fast approximate inverse of ``A^T A`` on tensors such as ``like``, where the operator has one."""
        return None

    @property
    def T(self) -> LinearOperator:  # noqa: N802  (the field's name)
        """The adjoint as an operator; ``A.T.T is A``."""
        return _Adjoint(self)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return _Composition(self, other)

    def __rmul__(self, factor: float) -> LinearOperator:
        return _Scaled(self, float(factor))

    def norm(self, *, iterations: int = 50, tolerance: float = 1e-5) -> float:
        """Largest singular value by the power method on ``A^T A``, computed once and kept.

        Args:
            iterations: most iterations.
            tolerance: stop when the estimate changes by less than this fraction.
        """
        if self._norm is None:
            generator = torch.Generator().manual_seed(0)
            x = torch.rand(self.domain_shape, generator=generator).to(_device_of(self))
            estimate = 0.0
            with torch.no_grad():
                for _ in range(iterations):
                    x = x / x.norm()
                    x = self.normal(x)
                    previous, estimate = estimate, math.sqrt(float(x.norm()))
                    if abs(estimate - previous) <= tolerance * estimate:
                        break
            self._norm = estimate
        return self._norm


class _Adjoint(LinearOperator):
    def __init__(self, base: LinearOperator) -> None:
        super().__init__(base.range_shape, base.domain_shape)
        self.base = base
        self.matched = base.matched

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self.base._adjoint_kernel(x)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.base._forward_kernel(y)

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self.base


class _Composition(LinearOperator):
    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if outer.domain_shape != inner.range_shape:
            raise ValueError(
                f"cannot compose {type(outer).__name__} (domain {outer.domain_shape}) with {type(inner).__name__} "
                f"(range {inner.range_shape}): the shapes must be equal"
            )
        super().__init__(inner.domain_shape, outer.range_shape)
        self.outer, self.inner = outer, inner
        self.matched = outer.matched and inner.matched

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self.outer._forward_kernel(self.inner._forward_kernel(x))

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.inner._adjoint_kernel(self.outer._adjoint_kernel(y))


class _Scaled(LinearOperator):
    def __init__(self, base: LinearOperator, factor: float) -> None:
        super().__init__(base.domain_shape, base.range_shape)
        self.base, self.factor = base, factor
        self.matched = base.matched

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self.factor * self.base._forward_kernel(x)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.factor * self.base._adjoint_kernel(y)


def _device_of(module: nn.Module) -> torch.device:
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


def _checked(operator: Operator, x: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    name = type(operator).__name__
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: {what} must be a floating-point torch tensor, got {got}")
    if tuple(x.shape[max(0, x.ndim - len(shape)) :]) != shape:
        raise ValueError(f"{name}: {what} must have trailing shape {shape}, got shape {tuple(x.shape)}")
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
