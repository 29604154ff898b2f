"""Conjugate gradients for least squares, and Tikhonov regularisation by the same iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from deft_ct.measurement.data_term import per_sample
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.classical.common import (
    IterativeReconstructor,
    LeastSquares,
    SolverInfo,
    StoppingRule,
    check_linear,
    check_number,
    prepare_fit,
)
from deft_ct.operators.differences import add_adjoint_differences, difference_scales, forward_differences
from deft_ct.operators.linear import LinearOperator
from deft_ct.reconstruction import Request
from deft_ct.runtime.search_space import Choice, Range, SearchSpace

Penalty = Literal["identity", "gradient"]

STRENGTH = 40.0
"""Default weight of Tikhonov's penalty for images in [-1, 1] with inverse variances as weights: 1e5 per (1/mm)^2."""


def cgls(
    y: Tensor,
    operator: LinearOperator,
    *,
    weights: Tensor | None = None,
    stopping: StoppingRule = StoppingRule(iterations=20, tolerance=1e-6),
    discrepancy: float = 0.0,
    x0: Tensor | None = None,
) -> tuple[Tensor, SolverInfo]:
    """Minimise ``1/2 |A x - y|_W^2`` by conjugate gradients (Hestenes and Stiefel 1952; Bjorck 1996, sec. 7.4).

    Stopping early is the regularisation. A sample stops at the first of two events. Its gradient ``|A^T W (y - A x)|``
    falls to the tolerance times the gradient at ``x = 0``. Or the mean of ``w (A x - y)^2`` over all rays falls to
    ``discrepancy`` (Morozov's principle). With inverse variances as weights, 1 is the level of the noise.

    Args:
        y: ``(..., *range_shape)``, data.
        operator: ``A``.
        weights: ``w``, broadcastable to ``y``, >= 0; ones when left out.
        stopping: see above.
        discrepancy: see above; 0 switches the second rule off.
        x0: start ``(..., *domain_shape)``; zero when left out.

    Returns:
        ``x`` ``(..., *domain_shape)``, and how the iterations ended, with the relative gradient as residual.

    Raises:
        TypeError: the operator is not linear, or ``y`` is not floating-point.
        ValueError: a wrong shape, NaN, or a number out of range.
    """
    problem = prepare_fit("cgls", y, operator, weights=weights, x0=x0)
    check_number("cgls: discrepancy", discrepancy)
    return _solve(problem, operator, 0.0, "identity", stopping, discrepancy)


def tikhonov(
    y: Tensor,
    operator: LinearOperator,
    *,
    weights: Tensor | None = None,
    strength: float,
    penalty: Penalty = "gradient",
    stopping: StoppingRule = StoppingRule(),
    x0: Tensor | None = None,
) -> tuple[Tensor, SolverInfo]:
    """Minimise ``1/2 |A x - y|_W^2 + strength / 2 |L x|^2`` by conjugate gradients.

    With inverse variances as weights this is the posterior mean under a Gaussian prior with precision
    ``strength L^T L``, so the strength belongs to the images (its unit is one over the square of that of ``x``).

    Args:
        y: ``(..., *range_shape)``, data.
        operator: ``A``; images ``(..., H, W)`` or volumes for the gradient penalty.
        weights: ``w``, broadcastable to ``y``, >= 0; ones when left out.
        strength: >= 0.
        penalty: ``L``: ``"identity"``, or ``"gradient"`` for forward differences, which are zero across the border.
            They are taken along the last two axes of images, or three of volumes, and divided by the spacing as in
            :func:`~deft_ct.methods.classical.tv.total_variation`.
        stopping: the tolerance is for the gradient of the objective, as a fraction of that at ``x = 0``.
        x0: start ``(..., *domain_shape)``; zero when left out.

    Returns:
        ``x`` ``(..., *domain_shape)``, and how the iterations ended, with the relative gradient as residual.

    Raises:
        TypeError: the operator is not linear, or ``y`` is not floating-point.
        ValueError: a wrong shape, NaN, a number out of range, or an unknown penalty.
    """
    problem = prepare_fit("tikhonov", y, operator, weights=weights, x0=x0)
    check_number("tikhonov: strength", strength)
    _check_penalty(penalty)
    return _solve(problem, operator, strength, penalty, stopping, 0.0)


@torch.no_grad()
def _solve(
    problem: LeastSquares,
    operator: LinearOperator,
    strength: float,
    penalty: Penalty,
    stopping: StoppingRule,
    discrepancy: float,
) -> tuple[Tensor, SolverInfo]:
    """Conjugate gradients on the normal equations in their least-squares form: the residual is carried along."""
    y, w = problem.y, 1.0 if problem.weights is None else problem.weights
    tiny = torch.finfo(y.dtype).tiny
    scales = difference_scales(operator) or (1.0, 1.0)
    x = y.new_zeros((len(y), *operator.domain_shape)) if problem.x0 is None else problem.x0.clone()
    r = y if problem.x0 is None else y - operator(x)
    limit = _energy(operator.adjoint(w * y))
    s = operator.adjoint(w * r)
    if strength:
        s = s - strength * _laplacian(x, penalty, scales)
    p, gamma = s, _energy(s)
    used = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for _ in range(stopping.iterations):
        alive = gamma > stopping.tolerance**2 * limit
        if discrepancy:
            alive &= (w * r.square()).flatten(1).mean(1) > discrepancy
        if not bool(alive.any()):
            break
        q = operator(p)
        curvature = (w * q.square()).flatten(1).sum(1)
        if strength:
            lp = strength * _laplacian(p, penalty, scales)
            curvature = curvature + (p * lp).flatten(1).sum(1)
        alpha = torch.where(alive & (curvature > 0), gamma / curvature.clamp_min(tiny), 0.0)
        x = x + per_sample(alpha, x) * p
        r = r - per_sample(alpha, r) * q
        s_new = operator.adjoint(w * r)
        if strength:
            s_new = s_new - strength * _laplacian(x, penalty, scales)
        gamma_new = _energy(s_new)
        p = s_new + per_sample(gamma_new / gamma.clamp_min(tiny), p) * p
        gamma = torch.where(alive, gamma_new, gamma)
        used += alive
    residual = (gamma / limit.clamp_min(tiny)).sqrt()
    converged = residual <= stopping.tolerance
    if discrepancy:
        converged |= (w * r.square()).flatten(1).mean(1) <= discrepancy
    info = SolverInfo(*(problem.unflatten(value.cpu()) for value in (used, residual, converged)))
    return problem.unflatten(x), info


def _energy(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1)


def _laplacian(x: Tensor, penalty: Penalty, scales: tuple[float, ...]) -> Tensor:
    """``L^T L x``."""
    if penalty == "identity":
        return x
    return add_adjoint_differences(torch.zeros_like(x), forward_differences(x, scales), scales)


def _check_penalty(penalty: str) -> None:
    if penalty not in ("identity", "gradient"):
        raise ValueError(f'penalty must be "identity" or "gradient", got {penalty!r}')


@dataclass(frozen=True, kw_only=True)
class CGLSConfig(StoppingRule):
    """Settings of :class:`CGLS`.

    Attributes:
        iterations: most iterations; stopping early is the regularisation.
        tolerance: relative gradient at which an image is done.
        discrepancy: weighted mean square residual at which an image is done; 0 switches this rule off.
        weighted: whether to use the statistical weights of the noise model.
    """

    iterations: int = 14
    tolerance: float = 1e-6
    discrepancy: float = 0.0
    weighted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("discrepancy", self.discrepancy)


class CGLS(IterativeReconstructor):
    """Conjugate gradients for least squares, stopped early."""

    name: ClassVar[str] = "cgls"
    config_type: ClassVar[type] = CGLSConfig
    search_space: ClassVar[SearchSpace] = {"iterations": Range(3, 60, log=True), "weighted": Choice((False, True))}

    def _solve(self, y: Tensor, operator: LinearOperator, measurement: Measurement) -> tuple[Tensor, SolverInfo]:
        config: CGLSConfig = self.config
        weights = measurement.noise.weights(y) if config.weighted else None
        return cgls(y, operator, weights=weights, stopping=config, discrepancy=config.discrepancy)


@dataclass(frozen=True, kw_only=True)
class TikhonovConfig(StoppingRule):
    """Settings of :class:`Tikhonov`.

    Attributes:
        strength: weight of the penalty, >= 0, in one over the squared unit of the image; see :func:`tikhonov`. None for
            :data:`STRENGTH` over the squared contrast of the measurement's images: 1e5 for attenuation in 1/mm, 40 for
            images in [-1, 1].
        penalty: ``"identity"`` or ``"gradient"``.
        tolerance: relative gradient at which an image is done.
    """

    strength: float | None = None
    penalty: Penalty = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength is not None:
            check_number("strength", self.strength)


class Tikhonov(IterativeReconstructor):
    """Quadratic regularisation with the statistical weights of the measurement's noise model."""

    name: ClassVar[str] = "tikhonov"
    title: ClassVar[str] = "Tikhonov"
    config_type: ClassVar[type] = TikhonovConfig
    search_space: ClassVar[SearchSpace] = {"strength": Range(1e3, 1e7, log=True)}

    def _check(self, request: Request) -> None:
        check_linear(self.name, request, images=self.config.penalty == "gradient")

    def defaults_for(self, measurement: Measurement) -> dict[str, Any]:
        """Strength by the values of the images."""
        return {"strength": STRENGTH / measurement.image_values.contrast**2}

    @classmethod
    def search_space_for(cls, measurement: Measurement) -> SearchSpace:
        """As for attenuation, in the unit of the images."""
        default = STRENGTH / measurement.image_values.contrast**2
        return {"strength": Range(0.01 * default, 100 * default, log=True)}

    def _solve(self, y: Tensor, operator: LinearOperator, measurement: Measurement) -> tuple[Tensor, SolverInfo]:
        config: TikhonovConfig = self.config_for(measurement)
        return tikhonov(
            y,
            operator,
            weights=measurement.fit_weights(y),
            strength=config.strength or 0.0,
            penalty=config.penalty,
            stopping=config,
        )
