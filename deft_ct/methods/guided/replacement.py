"""Replacement: what the data determine of each denoised image is replaced (Trippe et al. 2023, arXiv 2206.04119).

Song et al. 2021 (arXiv 2011.13456, appendix I.2) introduced it for inpainting. Here the operator itself knows the
nearest image with the data. For a motif this is the chain whose motif residues give way to the motif, moved onto them
as a rigid body, so nothing is assumed of its pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from deft_ct.diffusion.samplers import ddim_coefficients, pairs
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import GridConfig, SamplerConfig
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.operators.projection import Projecting
from deft_ct.runtime.search_space import Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class ReplacementConfig(GridConfig, SamplerConfig):
    """How the prior is sampled; the data are taken as exact."""


class Replacement(PosteriorSampler):
    """Sampling of the prior in which every denoised image is moved to the nearest one that has the data.

    The prior does not know of the data at the time of a step, so what it draws around them need not fit them: the
    method is a baseline. The noise of the data is not used.
    """

    name = "replacement"
    title = "replacement"
    config_type = ReplacementConfig
    needs = "projection"
    search_space: ClassVar[SearchSpace] = {"eta": Range(0.0, 1.0)}

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        schedule, config = self.prior.schedule, self.config
        times = config.times(schedule)

        def walk(chunk: Chunk) -> Tensor:
            x = chunk.start
            for done, (t, s) in enumerate(pairs(times), start=1):
                x0 = replaced(chunk.likelihood, self.prior.denoise(x, t))
                a_t = float(schedule.alpha_bar(t))
                signal, direction, fresh = ddim_coefficients(schedule, t, s, config.eta)
                along = direction / (1 - a_t) ** 0.5
                x = (signal - along * a_t**0.5) * x0 + along * x
                if fresh > 0:
                    x = x + fresh * chunk.normal(x)
                chunk.tick(done)
            return x

        return walk


def replaced(likelihood: Likelihood, x0: Tensor) -> Tensor:
    """The nearest image to ``x0`` ``(B, *image_shape)`` that has the data, in the prior's range.

    Raises:
        TypeError: the operator has no projection.
    """
    operator, to_physical = likelihood.operator, likelihood.to_physical
    if not isinstance(operator, Projecting):
        raise TypeError(f"{type(operator).__name__} has no projection")
    x = to_physical(x0)
    return x0 + (to_physical.inverse(operator.project(x, likelihood.y)) - to_physical.inverse(x))
