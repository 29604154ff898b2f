"""Shared code of the iterative methods: checks of their input, the start, and the record of how they ended."""

from __future__ import annotations

import abc
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.base import Operator
from deft_ct.operators.linear import LinearOperator
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor, UnsupportedError
from deft_ct.runtime.fields import check_fields


def check_linear(name: str, request: Request, *, images: bool = False) -> None:
    """Refuse a measurement that a method for linear operators cannot be used with, before any work.

    Args:
        name: of the method.
        request: what is asked for.
        images: whether the method also needs images ``(C, H, W)``, because it compares neighbouring pixels.

    Raises:
        UnsupportedError: the operator is not linear, or there are no images.
    """
    operator = request.measurement.operator
    if not isinstance(operator, LinearOperator):
        raise UnsupportedError(f"{name} needs a linear operator, {type(operator).__name__} is not")
    if images and len(request.image_shape) < 3:
        raise UnsupportedError(
            f"{name} compares neighbouring pixels, and {request.image_shape} is not the shape of an image (C, H, W)"
        )


@dataclass(frozen=True)
class SolverInfo:
    """How an iterative method ended, for each sample; every tensor has the batch shape of the data.

    Attributes:
        iterations: iterations used.
        residual: final value of the quantity in the stopping rule; NaN if not computed (tolerance 0).
        converged: whether the rule was met.
    """

    iterations: Tensor
    residual: Tensor
    converged: Tensor

    def record(self) -> dict[str, Any]:
        """JSON-ready summary for the provenance of a reconstruction."""
        residual = self.residual.flatten().tolist()
        return {
            "iterations": self.iterations.flatten().tolist(),
            "stopping_residual": [value if math.isfinite(value) else None for value in residual],
            "converged": self.converged.flatten().tolist(),
        }


@dataclass(frozen=True, kw_only=True)
class StoppingRule:
    """When an iteration ends; the configurations of the methods derive from it.

    Args:
        iterations: most iterations.
        tolerance: a sample stops when the quantity that its solver looks at has fallen to this; 0 runs all iterations.

    Raises:
        ValueError: no iteration, or a tolerance that is not a number >= 0.
    """

    iterations: int = 200
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_fields(self)
        name = type(self).__name__
        if self.iterations < 1:
            raise ValueError(f"{name}: iterations must be at least 1, got {self.iterations}")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(
                f"{name}: tolerance must be a finite number >= 0 (0: run all iterations), got {self.tolerance}"
            )


class IterativeReconstructor(Reconstructor):
    """A method around a solver for linear operators; its configuration is a :class:`StoppingRule`."""

    @abc.abstractmethod
    def _solve(self, y: Tensor, operator: LinearOperator, measurement: Measurement) -> tuple[Tensor, SolverInfo]:
        """Images, and how the iterations ended."""

    def _check(self, request: Request) -> None:
        check_linear(self.name, request)

    def _estimate(self, request: Request) -> Estimate:
        measurement = request.measurement
        x, info = self._solve(request.y, linear(self.name, measurement.operator), measurement)
        return Estimate(mean=x, record={"solver": info.record()})


@dataclass(frozen=True)
class LeastSquares:
    """Checked data with the batch axes flattened to one.

    Attributes:
        y: ``(N, *range_shape)``.
        weights: ``(N, *range_shape)`` or None for ones.
        x0: ``(N, *domain_shape)`` or None.
        batch: the batch shape that was flattened.
    """

    y: Tensor
    weights: Tensor | None
    x0: Tensor | None
    batch: tuple[int, ...]

    def unflatten(self, x: Tensor) -> Tensor:
        """Give ``(N, *)`` its batch axes back."""
        return x.reshape((*self.batch, *x.shape[1:]))


def linear(name: str, operator: Operator) -> LinearOperator:
    """The operator, if it is linear.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(operator, LinearOperator):
        raise TypeError(f"{name} needs a LinearOperator, got {type(operator).__name__}")
    return operator


def prepare_fit(
    name: str,
    y: Tensor,
    operator: LinearOperator,
    *,
    weights: Tensor | None,
    x0: Tensor | None,
) -> LeastSquares:
    """Check the input of every iterative method, before any work.

    Raises:
        TypeError: the operator is not linear, or a tensor is not floating-point.
        ValueError: a wrong shape, a value that is not finite, or a negative weight.
    """
    shape = linear(name, operator).range_shape
    if not isinstance(y, Tensor) or not y.is_floating_point():
        got = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"{name}: y must be a floating-point torch tensor, got {got}")
    if y.ndim < len(shape) or tuple(y.shape[y.ndim - len(shape) :]) != shape:
        raise ValueError(f"{name}: y must have trailing shape {shape}, got shape {tuple(y.shape)}")
    _finite(name, "y", y)
    y = y.as_subclass(Tensor)  # operations on subclasses, such as MONAI's, need not return what they should
    batch = tuple(y.shape[: y.ndim - len(shape)])
    if not operator.matched:
        warnings.warn(
            f"{name}: the adjoint of {type(operator).__name__} is not exact (matched is False), so the iterations may "
            'not converge; choose a matched backend, for example "matrix"',
            UserWarning,
            stacklevel=3,
        )
    if weights is not None:
        try:
            weights = weights.to(y).expand(y.shape)
        except RuntimeError:
            raise ValueError(
                f"{name}: weights must broadcast to the shape of y, {tuple(y.shape)}, got {tuple(weights.shape)}"
            ) from None
        _finite(name, "weights", weights)
        if bool((weights < 0).any()):
            raise ValueError(f"{name}: weights are inverse variances and must be >= 0, got {float(weights.min())}")
        weights = weights.reshape(-1, *shape)
    if x0 is not None:
        if tuple(x0.shape) != batch + operator.domain_shape:
            raise ValueError(f"{name}: x0 must have shape {batch + operator.domain_shape}, got {tuple(x0.shape)}")
        _finite(name, "x0", x0)
        x0 = x0.detach().to(y).reshape(-1, *operator.domain_shape)
    return LeastSquares(y.detach().reshape(-1, *shape), weights, x0, batch)


def first_iterate(operator: LinearOperator, y: Tensor, *, nonnegative: bool) -> Tensor:
    """Where an iteration begins when the caller does not say; see ``LinearOperator.first_guess``."""
    x = operator.first_guess(y)
    return x.clamp_min_(0) if nonnegative else x


def check_number(name: str, value: float) -> None:
    """Raise a ValueError unless ``value`` is finite and >= 0."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")


def _finite(name: str, what: str, value: Tensor) -> None:
    bad = int((~torch.isfinite(value)).sum())
    if bad:
        raise ValueError(f"{name}: {what} holds {bad} NaN or infinite values; mask or repair them first")
