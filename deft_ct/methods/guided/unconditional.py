"""Samples of the prior alone: what a diffusion method would say without data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from deft_ct.diffusion.samplers import ddim, dpm_solver
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import GridConfig, SamplerConfig
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk


@dataclass(frozen=True, kw_only=True)
class UnconditionalConfig(GridConfig, SamplerConfig):
    """How the prior is sampled.

    Args:
        steps: evaluations of the prior for each sample.
        sampler: ``"ddim"`` (with ``eta=1``, the default, ancestral sampling) or ``"dpm-solver"``, DPM-Solver++(2M),
            which is deterministic and does not use ``eta``.

    Raises:
        ValueError: a value is out of range.
    """

    sampler: Literal["ddim", "dpm-solver"] = "ddim"


class Unconditional(PosteriorSampler):
    """Draws from the prior; the data are not used.

    A baseline: its spread is that of the prior, and any method that uses the data must do better.
    """

    name = "unconditional"
    title = "unconditional"
    config_type = UnconditionalConfig
    uses_data = False

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        schedule, config = self.prior.schedule, self.config
        times = config.times(schedule)

        def walk(chunk: Chunk) -> Tensor:
            if config.sampler == "dpm-solver":
                return dpm_solver(self.prior.predict, chunk.start, schedule, times, callback=chunk.tick)
            return ddim(
                self.prior.predict, chunk.start, schedule, times, eta=config.eta, generators=chunk.generators,
                callback=chunk.tick,
            )  # fmt: skip

        return walk
