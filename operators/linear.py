"""The base class of linear forward models.

A subclass writes two raw kernels and nothing else. Shape checks, leading batch axes, autograd (any number of backward
passes), forward-mode differentiation and ``vmap`` are written once, here.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, overload

from torch import Tensor

from deft_ct.operators.arguments import checked
from deft_ct.operators.base import Operator
from deft_ct.operators.linear_function import LinearFunction
from deft_ct.operators.solvers import conjugate_gradient


class LinearOperator(Operator):
    """A linear forward model with its exact adjoint.

    Subclasses implement :meth:`_forward_kernel` and :meth:`_adjoint_kernel` on ``(N, *shape)`` tensors, without
    autograd in mind.

    Attributes:
        matched: whether the adjoint is exact (up to rounding). Solvers that need ``A^T`` warn when it is not.
    """

    matched: bool = True
    has_pseudo_inverse: bool = True
    __array_ufunc__ = None  # NumPy numbers leave ``number * A`` to us

    @abc.abstractmethod
    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        """Map ``(N, *range_shape)`` to ``(N, *domain_shape)``."""

    def _forward_batched(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.ndim - len(self.domain_shape)]
        if 0 in batch:
            return x.new_zeros((*batch, *self.range_shape))
        return self._forward_kernel(x.reshape(-1, *self.domain_shape)).reshape(*batch, *self.range_shape)

    def _adjoint_batched(self, y: Tensor) -> Tensor:
        batch = y.shape[: y.ndim - len(self.range_shape)]
        if 0 in batch:
            return y.new_zeros((*batch, *self.domain_shape))
        return self._adjoint_kernel(y.reshape(-1, *self.range_shape)).reshape(*batch, *self.domain_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator to ``(..., *domain_shape)``; see :meth:`Operator.forward`."""
        x = checked(self, x, self.domain_shape, "input")
        return LinearFunction.apply(self._forward_batched, self._adjoint_batched, x)

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
        y = checked(self, y, self.range_shape, "adjoint input")
        return LinearFunction.apply(self._adjoint_batched, self._forward_batched, y)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """``A^T v``: the Jacobian of a linear operator does not depend on ``x``."""
        return self.adjoint(v)

    def _normal_near_zero(self, x: Tensor) -> Tensor:
        return self.normal(x)

    def normal(self, x: Tensor) -> Tensor:
        """``A^T A x``; subclasses may override it with a faster route to the same result."""
        return self.adjoint(self(x))

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Least-squares solution of minimum norm by conjugate gradients; CT overrides it with FBP."""
        solution, _ = conjugate_gradient(self.normal, self.adjoint(y), batch_ndim=y.ndim - len(self.range_shape))
        return solution

    def data_images(self, y: Tensor) -> Tensor:
        """``A^T y / |A|^2``, which does not amplify noise as the pseudo-inverse does; see ``Operator.data_images``."""
        image = self.adjoint(y)
        scale = y.new_tensor(self.norms()).square().reshape(-1, *(1,) * (image.ndim - 1))
        return (image / scale).unsqueeze(1)

    def first_guess(self, y: Tensor) -> Tensor:
        """Where an iteration starts: zero, or a smooth quick reconstruction; ``(N, *range_shape)`` to images."""
        return y.new_zeros((len(y), *self.domain_shape))

    def preconditioner(self, like: Tensor) -> Callable[[Tensor], Tensor] | None:
        """A fast approximate inverse of ``A^T A`` on tensors such as ``like``, where the operator has one."""
        return None

    @property
    def T(self) -> LinearOperator:  # noqa: N802  (the field's name)
        """The adjoint as an operator; ``A.T.T is A``."""
        return self._algebra().Adjoint(self)

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    @overload
    def __matmul__(self, other: Operator) -> Operator: ...
    def __matmul__(self, other: Operator | Tensor) -> Operator | Tensor:
        """``A @ x`` applies the operator, ``A @ B`` applies ``B`` first; linear if both are.

        Raises:
            ValueError: the shapes do not fit.
        """
        return super().__matmul__(other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        """``(A + B) x = A x + B x``.

        Raises:
            TypeError: ``other`` is not a linear operator.
            ValueError: the two have other shapes.
        """
        return self._algebra().add(self, other)

    def __radd__(self, other: Any) -> LinearOperator:
        """Only for the message when ``other`` is not a linear operator."""
        return self._algebra().add(other, self)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        """``(A - B) x = A x - B x``; errors as for the sum."""
        return self._algebra().add(self, other, sign=-1)

    def __rsub__(self, other: Any) -> LinearOperator:
        """Only for the message when ``other`` is not a linear operator."""
        return self._algebra().add(other, self, sign=-1)

    def __mul__(self, factor: float) -> LinearOperator:
        """``(a A) x = a (A x)``; keeps a singular value decomposition.

        Raises:
            TypeError: ``factor`` is not a real number; tensors and complex numbers are not.
            ValueError: ``factor`` is not finite.
        """
        return self._algebra().scale(self, factor)

    def __rmul__(self, factor: float) -> LinearOperator:
        """As ``A * factor``."""
        return self._algebra().scale(self, factor)

    def __truediv__(self, divisor: float) -> LinearOperator:
        """``A * (1 / divisor)``.

        Raises:
            TypeError: ``divisor`` is not a real number.
            ValueError: ``divisor`` is zero or not finite.
        """
        return self._algebra().scale(self, divisor, inverse=True)

    def __neg__(self) -> LinearOperator:
        """``-1 * A``."""
        return self._algebra().scale(self, -1.0)

    def __or__(self, other: LinearOperator) -> LinearOperator:
        """``stack([A, B])``: the data of both, one after the other; see :func:`~deft_ct.operators.stack`."""
        return self._algebra().stack([self, other])
