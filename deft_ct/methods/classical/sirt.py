"""SIRT and its statistically weighted form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from deft_ct.measurement.data_term import per_sample
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.classical.common import IterativeReconstructor, LeastSquares, SolverInfo, StoppingRule, prepare_fit
from deft_ct.operators.linear import LinearOperator
from deft_ct.runtime.search_space import Choice, Range, SearchSpace

_POINTS = 0.02
"""Share of bright pixels in the image that tells whether an operator has negative entries."""


@torch.no_grad()
def sirt(
    y: Tensor,
    operator: LinearOperator,
    *,
    weights: Tensor | None = None,
    stopping: StoppingRule = StoppingRule(),
    x0: Tensor | None = None,
    nonnegative: bool = True,
) -> tuple[Tensor, SolverInfo]:
    """Simultaneous iterative reconstruction: ``x <- x + C A^T W (y - A x)``, then ``x <- max(x, 0)`` if asked.

    Without weights this is SIRT (Gilbert 1972; Gregor and Benson, IEEE Trans. Med. Imaging 2008): W holds one over the
    row sums of A and C one over its column sums. With weights, ``C = 1 / (A^T W A 1)``: the separable surrogate of
    weighted least squares (Erdogan and Fessler, Phys. Med. Biol. 1999), of which SIRT is the case above. Both decrease
    ``|A x - y|_W`` at every iteration for an operator with non-negative entries, such as a ray transform. The sums mean
    nothing where entries are negative (bicubic super-resolution, compressed sensing): W is then one, or the weights,
    and C is ``1 / (max(W) |A|^2)``, the iteration of Landweber (Am. J. Math. 1951). Stopping early is the
    regularisation.

    Args:
        y: ``(..., *range_shape)``, data.
        operator: ``A``.
        weights: broadcastable to ``y``, >= 0; inverse variances, for example.
        stopping: the tolerance is for the change of an iteration, as a fraction of the norm of the image.
        x0: start ``(..., *domain_shape)``; zero when left out.
        nonnegative: whether ``x >= 0`` is imposed.

    Returns:
        ``x`` ``(..., *domain_shape)``, and how the iterations ended, with the relative change as residual.

    Raises:
        TypeError: the operator is not linear, or ``y`` is not floating-point.
        ValueError: a wrong shape, NaN, or a number out of range.
    """
    problem = prepare_fit("sirt", y, operator, weights=weights, x0=x0)
    w, step = _weights_and_step(problem, operator)
    x = problem.y.new_zeros((len(problem.y), *operator.domain_shape)) if problem.x0 is None else problem.x0
    alive = torch.ones(len(x), dtype=torch.bool, device=x.device)
    used = torch.zeros(len(x), dtype=torch.long, device=x.device)
    change = x.new_full((len(x),), math.nan)
    for _ in range(stopping.iterations):
        new = x + step * operator.adjoint(w * (problem.y - operator(x)))
        if nonnegative:
            new.clamp_min_(0)
        if stopping.tolerance > 0:
            moved = (new - x).flatten(1).norm(dim=1)
            change = torch.where(alive, moved / new.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny), change)
        x = torch.where(per_sample(alive, x).bool(), new, x)
        used += alive
        alive = alive & ~(change <= stopping.tolerance)
        if not bool(alive.any()):
            break
    info = SolverInfo(*(problem.unflatten(value.cpu()) for value in (used, change, change <= stopping.tolerance)))
    return problem.unflatten(x), info


def _weights_and_step(problem: LeastSquares, operator: LinearOperator) -> tuple[Tensor, Tensor]:
    """``W`` and ``C`` of :func:`sirt`, each of a shape that broadcasts."""
    ones = torch.ones(operator.images or 1, *operator.domain_shape, dtype=problem.y.dtype, device=problem.y.device)
    if _has_negative_entries(operator, ones):
        w = torch.ones_like(problem.y) if problem.weights is None else problem.weights
        norms = problem.y.new_tensor(operator.norms()).square()
        return w, per_sample(1 / (norms * w.flatten(1).amax(1)).clamp_min(torch.finfo(w.dtype).tiny), ones)
    reach = operator(ones)
    w = _inverse(reach) if problem.weights is None else problem.weights
    return w, _inverse(operator.adjoint(w * reach))


def _has_negative_entries(operator: LinearOperator, like: Tensor) -> bool:
    """Whether data of a few bright points, at random places, fall below zero by more than rounding."""
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand(like.shape[1:], generator=generator) < _POINTS).to(like).expand_as(like)
    data = operator(points)
    return bool(data.amin() < -1e-4 * data.abs().amax())


def _inverse(sums: Tensor) -> Tensor:
    """One over the sums, and 0 for rays that miss the image and pixels that no ray sees."""
    floor = 1e-6 * sums.abs().amax(tuple(range(1, sums.ndim)), keepdim=True)
    return torch.where(sums > floor, 1 / sums.clamp_min(torch.finfo(sums.dtype).tiny), 0.0)


@dataclass(frozen=True, kw_only=True)
class SIRTConfig(StoppingRule):
    """Settings of :class:`SIRT`.

    Attributes:
        tolerance: relative change at which an image is done.
        nonnegative: whether values below zero are ruled out; None for attenuation only.
        weighted: whether to use the statistical weights of the noise model instead of the weights of SIRT.
    """

    nonnegative: bool | None = None
    weighted: bool = False


class SIRT(IterativeReconstructor):
    """Simultaneous iterative reconstruction."""

    name: ClassVar[str] = "sirt"
    config_type: ClassVar[type] = SIRTConfig
    search_space: ClassVar[SearchSpace] = {"iterations": Range(10, 400, log=True), "weighted": Choice((False, True))}

    def defaults_for(self, measurement: Measurement) -> dict[str, Any]:
        """The sign by the values of the images."""
        return {"nonnegative": measurement.image_values.nonnegative}

    def _solve(self, y: Tensor, operator: LinearOperator, measurement: Measurement) -> tuple[Tensor, SolverInfo]:
        config: SIRTConfig = self.config_for(measurement)
        weights = measurement.noise.weights(y) if config.weighted else None
        return sirt(y, operator, weights=weights, stopping=config, nonnegative=bool(config.nonnegative))
