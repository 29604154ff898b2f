"""Decomposed diffusion sampling (Chung et al. 2024, arXiv 2303.05754, algorithm 1 and eq. 19)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deft_ct.diffusion.samplers import ddim
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import ConjugateGradientConfig, GuidedConfig, SliceCouplingConfig, check_positive
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.methods.guided.start import START
from deft_ct.runtime.fields import MaybeInfinite
from deft_ct.runtime.search_space import Choice, Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class DDSConfig(GuidedConfig, ConjugateGradientConfig, SliceCouplingConfig):
    """Settings of DDS. The defaults are the paper's values for CT (50 steps, eta 0.85, 5 iterations).

    Args:
        steps: evaluations of the prior.
        gamma: weight of the data, for an operator of norm 1: a step minimises
            ``gamma |y - A x|^2 + |x - x0|^2``; infinity is the paper's step for noise-free data, conjugate gradients
            on the normal equations from ``x0``.
        cg_iterations: conjugate-gradient iterations of a step: they are the Krylov subspace that keeps the step near
            the images, so more is not better.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 50
    eta: float = 0.85
    gamma: MaybeInfinite = math.inf
    cg_iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(gamma=self.gamma)


class DDS(PosteriorSampler):
    """DDIM with a few conjugate-gradient iterations towards the data on each denoised image; the noise is kept."""

    name = "dds"
    config_type = DDSConfig
    takes_volumes = True
    can_start_late = True
    needs = "linear"
    search_space: ClassVar[SearchSpace] = {
        "cg_iterations": Range(2, 20, log=True),
        "weighted": Choice((True, False)),
        "start": START,
    }

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        schedule, config = self.prior.schedule, self.config
        times = config.times(schedule)

        def walk(chunk: Chunk) -> Tensor:
            term = DataTerm(chunk.likelihood, weighted=config.weighted, coupling=config.coupling)
            damping = torch.zeros_like(term.norm) if math.isinf(config.gamma) else term.norm.square() / config.gamma

            def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
                x0, eps = self.prior.predict(x_t, t)
                return x0 + term.correction(x0, damping, iterations=config.cg_iterations), eps

            return ddim(
                denoise, chunk.start, schedule, times, eta=config.eta, generators=chunk.generators, callback=chunk.tick
            )

        return walk
