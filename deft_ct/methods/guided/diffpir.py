"""Denoising diffusion models for plug-and-play restoration (Zhu et al. 2023, arXiv 2305.08995, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from deft_ct.diffusion.samplers import pairs
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import ConjugateGradientConfig, SliceCouplingConfig, WarmStartConfig, check_positive
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.methods.guided.start import START
from deft_ct.runtime.search_space import Choice, Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class DiffPIRConfig(WarmStartConfig, ConjugateGradientConfig, SliceCouplingConfig):
    """How DiffPIR samples.

    Args:
        steps: evaluations of the prior; the paper reports 20 to 100.
        strength: lambda, the weight of the prior in a step, ``rho_t = lambda sigma_n^2 / sigma_t^2``; the best
            ones of the paper lie between 3 and 25 and, like zeta, are found for each task.
        zeta: share of fresh noise, 0 to 1.

    Raises:
        ValueError: a value is out of range.
    """

    strength: float = 7.0
    zeta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(strength=self.strength)
        if not 0 <= self.zeta <= 1:
            raise ValueError(f"zeta must lie in [0, 1], got {self.zeta}")


class DiffPIR(PosteriorSampler):
    """Half-quadratic splitting along the diffusion: denoise, solve the data term exactly, noise again."""

    name = "diffpir"
    title = "DiffPIR"
    config_type = DiffPIRConfig
    takes_volumes = True
    can_start_late = True
    needs = "linear"
    search_space: ClassVar[SearchSpace] = {
        "strength": Range(0.1, 1e3, log=True),
        "zeta": Range(0.0, 1.0),
        "weighted": Choice((True, False)),
        "start": START,
    }

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        schedule, config = self.prior.schedule, self.config
        times = config.times(schedule)

        def walk(chunk: Chunk) -> Tensor:
            term = DataTerm(chunk.likelihood, weighted=config.weighted, coupling=config.coupling)
            x = x0 = chunk.start
            for done, (t, s) in enumerate(pairs(times), start=1):
                a_t, a_s = float(schedule.alpha_bar(t)), float(schedule.alpha_bar(s))
                x0, _ = self.prior.predict(x, t)
                damping = config.strength * term.sigma.square() * a_t / (1 - a_t)  # rho_t
                x0 = x0 + term.correction(x0, damping, iterations=config.cg_iterations)
                eps = (x - a_t**0.5 * x0) / (1 - a_t) ** 0.5
                noise = (1 - config.zeta) ** 0.5 * eps + config.zeta**0.5 * chunk.normal(x)
                x = a_s**0.5 * x0 + (1 - a_s) ** 0.5 * noise
                chunk.tick(done)
            return x0

        return walk
