"""Reconstruction guidance (Ho et al. 2022, "Video diffusion models", arXiv 2204.03458, section 3.1, eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from deft_ct.diffusion.samplers import ddim
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import GuidedConfig, check_positive
from deft_ct.methods.guided.dps import misfit_gradient
from deft_ct.methods.guided.replacement import replaced
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.methods.guided.start import START
from deft_ct.operators.projection import Projecting
from deft_ct.runtime.search_space import Choice, Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class ReconstructionGuidanceConfig(GuidedConfig):
    """Settings of reconstruction guidance.

    Args:
        steps: evaluations of the prior, each with one backpropagation through it.
        weight: the paper's ``w_r`` (it finds more than 1 useful), for an operator of norm 1.
        replace: whether the denoised image is also moved to the nearest one that has the data, where the operator knows
            it. The paper does so: its data are exact frames of a video.
        weighted: statistical weights instead of white noise.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 250
    weight: float = 1.0
    replace: bool = True
    weighted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(weight=self.weight)


class ReconstructionGuidance(PosteriorSampler):
    """Sampling with the denoised image moved against the gradient of its data misfit by the noisy image.

    ``x0 - w sqrt(abar_t) / 2 grad |y - A x0|^2``, with the prior differentiated. The gradient is the one of DPS with
    ``norm="l2sq"``. DPS takes a step of one size after each step of the sampler. Here the denoised image is corrected
    before it, with a weight that falls with the noise, and the noise estimate follows.
    """

    name = "reconstruction_guidance"
    title = "reconstruction guidance"
    config_type = ReconstructionGuidanceConfig
    can_start_late = True
    search_space: ClassVar[SearchSpace] = {
        "weight": Range(0.1, 10.0, log=True),
        "weighted": Choice((True, False)),
        "start": START,
    }

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        schedule, config = self.prior.schedule, self.config
        times = config.times(schedule)
        replaces = config.replace and isinstance(likelihood.operator, Projecting)

        def walk(chunk: Chunk) -> Tensor:
            term = DataTerm(chunk.likelihood, weighted=config.weighted)

            def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
                x0, _, gradient = misfit_gradient(self.prior, term, x_t, t, "l2sq")
                signal, noise = schedule.coefficients(x_t.new_tensor(float(t)), x_t)
                guided = x0 - config.weight * signal * gradient
                if replaces:
                    guided = replaced(chunk.likelihood, guided)
                return guided, (x_t - signal * guided) / noise

            return ddim(
                denoise, chunk.start, schedule, times, eta=config.eta, generators=chunk.generators, callback=chunk.tick
            )

        return walk
