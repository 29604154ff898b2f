"""Manifold constrained gradients (Chung et al. 2022, arXiv 2206.00941, eq. 14 to 16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided.config import check_counts
from deft_ct.methods.guided.dps import DPSConfig, default_zeta, gradient_walk
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.methods.guided.start import START
from deft_ct.runtime.search_space import Choice, Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class MCGConfig(DPSConfig):
    """How MCG samples.

    Args:
        cg_iterations: conjugate-gradient iterations of a projection; stopping early is its regularisation.
        steps: see :class:`~deft_ct.methods.guided.dps.DPSConfig`, as all that follow.
        zeta: the paper's alpha, divided by the norm of the residual as there.
        norm: the misfit that is descended.
        weighted: statistical weights instead of white noise, in the gradient and in the projection.
        eta: 1 is the ancestral sampler of the paper.

    Raises:
        ValueError: a value is out of range.
    """

    cg_iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(cg_iterations=self.cg_iterations)


class MCG(PosteriorSampler):
    """The gradient step of DPS, then a projection onto the images that agree with the (noised) data.

    The projection assumes noise-free data, so it fits the noise of noisy ones: that is the method's known weakness.
    """

    name = "mcg"
    config_type = MCGConfig
    can_start_late = True
    needs = "linear"
    search_space: ClassVar[SearchSpace] = {
        "zeta": Range(0.03, 10.0, log=True),
        "cg_iterations": Range(1, 20, log=True),
        "weighted": Choice((True, False)),
        "start": START,
    }

    def defaults_for(self, measurement: Measurement) -> dict[str, Any]:
        """The step by the scale of the images."""
        return {"zeta": default_zeta(measurement)}

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        def walk(chunk: Chunk) -> Tensor:
            def project(x: Tensor, term: DataTerm, s: int) -> Tensor:
                # x + B^+ (sqrt(a) (y - A(0)) + sqrt(1 - a) B n - B x), written with the residual of x / sqrt(a) so
                # that the affine part of the operator is handled where it belongs.
                abar = float(self.prior.schedule.alpha_bar(s))
                clean = x if s < 0 else (x - (1 - abar) ** 0.5 * chunk.normal(x)) / abar**0.5
                damping = 1e-6 * term.norm.square()
                return x + abar**0.5 * term.correction(clean, damping, iterations=self.config.cg_iterations)

            return gradient_walk(self.prior, chunk, self.config, project)

        return walk
