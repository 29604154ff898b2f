"""Decoupled annealing posterior sampling (Zhang et al. 2024, arXiv 2407.01521, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from deft_ct.diffusion.samplers import ddim, pairs
from deft_ct.diffusion.schedule import time_grid
from deft_ct.measurement.data_term import DataTerm, per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import (
    ConjugateGradientConfig,
    SliceCouplingConfig,
    WarmStartConfig,
    check_counts,
    check_positive,
)
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk, check_operator
from deft_ct.methods.guided.start import START
from deft_ct.operators.linear import LinearOperator
from deft_ct.runtime.search_space import Choice, Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class DAPSConfig(WarmStartConfig, ConjugateGradientConfig, SliceCouplingConfig):
    """Settings of DAPS. Steps, ODE steps and Langevin steps are the paper's values for 1000 evaluations.

    Args:
        steps: noise levels. With the grid ``"karras"`` they follow the authors' power law (exponent 7), but go on to
            the prior's lowest noise, where the authors stop at a noise-to-signal ratio of 0.1.
        grid: of the noise levels, and of the evaluations at each of them.
        ode_steps: evaluations of the prior at each level, along the probability-flow ODE.
        inner: how a clean image is drawn given the data: ``"langevin"`` as in the paper, ``"cg"`` exactly, for
            linear operators, or ``"auto"``: exactly where possible.
        langevin_steps: Langevin steps at each level.
        langevin_step: their size, relative to the largest curvature of the target (the paper's size for its
            operators of norm 1 is about 1); below 2 for stability.
        radius: ``r_t / sigma_t``, how far the clean image may be drawn from the denoised one at noise level
            ``sigma_t``; the paper takes 1. Less trusts the prior more.
        coupling: see :class:`~deft_ct.methods.guided.config.SliceCouplingConfig`; of exact draws alone.
        cg_iterations: most conjugate-gradient iterations of an exact draw.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 200
    ode_steps: int = 5
    inner: Literal["auto", "cg", "langevin"] = "auto"
    langevin_steps: int = 100
    langevin_step: float = 0.5
    radius: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(ode_steps=self.ode_steps, langevin_steps=self.langevin_steps)
        check_positive(langevin_step=self.langevin_step, radius=self.radius)
        if self.langevin_step >= 2:
            raise ValueError(f"langevin_step must lie in (0, 2), got {self.langevin_step}")


class DAPS(PosteriorSampler):
    """At each noise level: denoise fully, draw a clean image near the result given the data, and noise it anew.

    "Near" is ``N(x0, r_t^2 I)`` with ``r_t`` in proportion to ``sigma_t``, ``sigma_t^2 = (1 - abar_t) / abar_t``. Needs
    no derivative of the prior, and any differentiable operator will do. Noise-free data are given the paper's standard
    deviation of 0.01.
    """

    name = "daps"
    config_type = DAPSConfig
    takes_volumes = True
    can_start_late = True
    search_space: ClassVar[SearchSpace] = {
        "radius": Range(0.03, 3.0, log=True),
        "weighted": Choice((True, False)),
        "start": START,
    }

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        schedule, config = self.prior.schedule, self.config
        times = config.times(schedule)
        exact = config.inner == "cg" or (config.inner == "auto" and _is_linear(likelihood))
        if exact:
            check_operator("daps with inner='cg'", "linear", likelihood)

        def walk(chunk: Chunk) -> Tensor:
            term = DataTerm(chunk.likelihood, weighted=config.weighted, coupling=config.coupling, noise_free=0.01)
            x = x0 = chunk.start
            for done, (t, s) in enumerate(pairs(times), start=1):
                levels = time_grid(schedule, min(config.ode_steps, t + 1), last=t, spacing=config.grid)
                x0 = ddim(self.prior.predict, x, schedule, levels)
                a_t, a_s = float(schedule.alpha_bar(t)), float(schedule.alpha_bar(s))
                radius = config.radius * ((1 - a_t) / a_t) ** 0.5
                if exact:
                    x0 = exact_draw(term, x0, radius, chunk, config.cg_iterations)
                else:
                    x0 = langevin(term, x0, radius, chunk, config.langevin_steps, config.langevin_step)
                if s >= 0:
                    x = a_s**0.5 * x0 + (1 - a_s) ** 0.5 * chunk.normal(x0)
                chunk.tick(done)
            return x0

        return walk


def _is_linear(likelihood: Likelihood) -> bool:
    try:
        check_operator("", "linear", likelihood)
    except ValueError:
        return False
    return isinstance(likelihood.operator, LinearOperator)


def exact_draw(term: DataTerm, centre: Tensor, radius: float, chunk: Chunk, iterations: int) -> Tensor:
    """Draw from ``p(y | x) N(x; centre, radius^2 I)`` of a linear operator by solving with perturbed data.

    Perturb and optimise (Papandreou and Yuille 2010): the solution of ``(B^T W B + s^2 / r^2) d = B^T W residual +
    B^T sqrt(W) s n + s^2 / r m`` with standard normal ``n`` and ``m`` has the target's mean and covariance.
    """
    sigma = per_sample(term.sigma, centre)
    y = term.likelihood.y
    data_noise = per_sample(term.sigma, y) * term.weights.sqrt() * chunk.normal(y)
    rhs = term.descent(centre) + term.pull_back(centre, data_noise)
    rhs = rhs + sigma.square() / radius * chunk.normal(centre)
    coupling = term.coupling_at(centre)
    if coupling is not None:  # the same for the coupling of the slices, a Gaussian once it is majorised
        rhs = rhs - coupling(centre) + sigma * coupling.noise(chunk.normal(coupling.weights))
    return centre + term.solve(rhs, (term.sigma / radius).square(), iterations=iterations, coupling=coupling)


def langevin(term: DataTerm, centre: Tensor, radius: float, chunk: Chunk, steps: int, step: float) -> Tensor:
    """Unadjusted Langevin steps on ``p(y | x) N(x; centre, radius^2 I)`` from its centre (eq. 9).

    Each sample's step is ``step`` over a bound of the curvature, ``max(W) |B|^2 / sigma^2 + 1 / radius^2``.
    """
    largest = term.weights.flatten(1).amax(1)
    curvature = largest * term.norm.square() / term.sigma.square() + radius**-2
    size, precision = per_sample(step / curvature, centre), per_sample(term.sigma.square().reciprocal(), centre)
    x = centre
    for _ in range(steps):
        gradient = precision * term.descent(x) + (centre - x) / radius**2
        x = x + size * gradient + (2 * size).sqrt() * chunk.normal(x)
    return x
