"""Pseudoinverse-guided diffusion models for inverse problems (Song, Vahdat, Mardani and Kautz, ICLR 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from deft_ct.diffusion.samplers import ddim
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided.config import ConjugateGradientConfig, GuidedConfig, check_positive
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.methods.guided.start import START
from deft_ct.runtime.search_space import Choice, Range, SearchSpace

VALUE_STD = 0.5
"""Standard deviation of the values of an image in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class PiGDMConfig(GuidedConfig, ConjugateGradientConfig):
    """How PiGDM samples.

    Args:
        steps: evaluations of the prior, each with one backpropagation through it.
        data_std: standard deviation of the images that the covariance of the denoised image is made for. The paper
            takes 1, ``r_t^2 = 1 - abar_t`` (its eq. 10 with ``sigma_t^2 = (1 - abar_t) / abar_t``). It stands for all
            directions at once. The smooth ones spread far more than a pixel, and with a much smaller value the sampling
            diverges; see :class:`PiGDM`. None is 1 for images with a unit, such as CT. For images in the prior's range
            it is the most that any direction can have: :data:`VALUE_STD` times the square root of the number of values
            of an image.
        eta: the paper uses 1.

    Raises:
        ValueError: a value is out of range.
    """

    data_std: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_std is not None:
            check_positive(data_std=self.data_std)


class PiGDM(PosteriorSampler):
    """Guidance by the score of ``N(y; A x0, r_t^2 A A^T + noise)``, pulled back through the prior (eq. 7 and 8).

    Exact for a Gaussian prior of covariance ``data_std^2 I``. Noise-free data are given a standard deviation of
    1e-3.

    The Jacobian of the prior has the true covariance ``C_t`` of the clean image in it, ``sqrt(abar_t) / (1 - abar_t)
    C_t``, so that what the data fix is corrected ``C_t / r_t^2`` times over. With a ``data_std`` well below the true
    spread of a direction each step overshoots further than the last, and the sampling diverges, with an exact prior,
    too; more than that spread is safe.
    """

    name = "pigdm"
    title = "PiGDM"
    config_type = PiGDMConfig
    can_start_late = True
    needs = "linear"
    search_space: ClassVar[SearchSpace] = {
        "data_std": Range(0.3, 30.0, log=True),
        "weighted": Choice((True, False)),
        "start": START,
    }

    def defaults_for(self, measurement: Measurement) -> dict[str, Any]:
        """The spread by the scale of the images and their size."""
        if measurement.units is not None:
            return {"data_std": 1.0}
        return {"data_std": VALUE_STD * math.prod(measurement.operator.domain_shape) ** 0.5}

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        schedule, config = self.prior.schedule, self.config_for(likelihood.measurement)
        times = config.times(schedule)
        variance = config.data_std**2

        def walk(chunk: Chunk) -> Tensor:
            term = DataTerm(chunk.likelihood, weighted=config.weighted)

            def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
                abar = float(schedule.alpha_bar(t))
                spread = variance * (1 - abar) / (abar * variance + 1 - abar)
                with torch.enable_grad():
                    point = x_t.detach().requires_grad_()
                    x0, eps = self.prior.predict(point, t)
                    # B^T (r^2 B B^T + S)^-1 v = (B^T S^-1 B + 1/r^2)^-1 B^T S^-1 v / r^2: the proximal step over r^2.
                    damping = term.sigma.square() / spread
                    pull = term.correction(x0.detach(), damping, iterations=config.cg_iterations) / spread
                    (score,) = torch.autograd.grad(x0, point, pull)
                shift = (1 - abar) / abar**0.5 * score
                return x0.detach() + shift, eps.detach() - (1 - abar) ** 0.5 * score

            return ddim(
                denoise, chunk.start, schedule, times, eta=config.eta, generators=chunk.generators, callback=chunk.tick
            )

        return walk
