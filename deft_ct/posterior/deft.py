"""DEFT: sampling of the posterior with a learned h-transform (Denker et al. 2024, arXiv 2406.01781)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deft_ct.htransform import Condition, HTransform, condition_for
from deft_ct.measurement import Likelihood
from deft_ct.priors import Prior
from deft_ct.progress import Ticker
from deft_ct.reconstructor import Estimate, PriorReconstructor, Request
from deft_ct.samplers import Denoiser, ddim
from deft_ct.schedule import time_grid
from deft_ct.seeds import generator_for, normal_like


@dataclass(frozen=True, kw_only=True)
class DEFTConfig:
    """How DEFT samples.

    Args:
        steps: evaluations of the prior for each sample.
        eta: 0 for the deterministic sampler, 1 for the ancestral one.
        batch_size: samples that are walked at once; changes memory and speed, not results.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 20
    eta: float = 1.0
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta}")


class DEFT(PriorReconstructor):
    """Posterior sampling with a frozen prior and a trained h-transform.

    Neither network is differentiated.

    Args:
        prior: the unconditional model.
        htransform: the correction that was trained for it.
        config: sampler settings.

    Raises:
        ValueError: the h-transform belongs to another prior.
    """

    name = "deft"
    config_type = DEFTConfig

    def __init__(self, prior: Prior, htransform: HTransform, config: DEFTConfig | None = None) -> None:
        super().__init__(prior, config or DEFTConfig())
        if htransform.prior_hash and htransform.prior_hash != prior.content_hash():
            raise ValueError(
                "this h-transform was trained for another prior (SHA-256 "
                f"{htransform.prior_hash[:12]}..., got {prior.content_hash()[:12]}...): load the matching pair"
            )
        self.htransform = htransform.eval().requires_grad_(False)

    def _describe(self) -> dict[str, Any]:
        return super()._describe() | {"htransform_sha256": self.htransform.content_hash()}

    @torch.no_grad()
    def _estimate(self, request: Request) -> Estimate:
        y, count = request.y, request.num_samples
        likelihood = request.measurement.likelihood(y, self.prior.value_range)
        times = time_grid(self.prior.schedule, self.config.steps)
        names = [(key, k) for key in request.keys for k in range(count)]
        walks = []
        with self._bar(request, len(times) * len(names)) as tick:
            condition = condition_for(likelihood, self.htransform.config).repeat(count)
            repeated = likelihood.repeat(count)
            for start in range(0, len(names), self.config.batch_size):
                part = slice(start, start + self.config.batch_size)
                generators = [generator_for(request.seed, self.name, key, k) for key, k in names[part]]
                shape = (len(generators), self.prior.channels, *request.measurement.operator.domain_shape[-2:])
                walks.append(
                    ddim(
                        conditional_denoiser(self.prior, self.htransform, repeated[part], condition[part]),
                        normal_like(torch.empty(shape, dtype=y.dtype, device=y.device), generators),
                        self.prior.schedule,
                        times,
                        eta=self.config.eta,
                        generators=generators,
                        callback=partial(_tick, tick, len(generators)),
                    )
                )
        samples = likelihood.repeat(count).to_physical(torch.cat(walks))
        return Estimate(samples=samples.reshape(len(y), count, *samples.shape[1:]))


def _tick(tick: Ticker, count: int, _step: int) -> None:
    tick(count)


def conditional_denoiser(
    prior: Prior, htransform: HTransform, likelihood: Likelihood, condition: Condition
) -> Denoiser:
    """The prior with its h-transform, as a denoiser given the measurement.

    Args:
        prior: frozen; evaluated without a graph.
        htransform: the trained correction.
        likelihood: the measurement with its data.
        condition: what the h-transform was told of it.
    """

    def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            x0, eps = prior.predict(x_t, t)
            guidance = likelihood.guidance(x0, htransform.config.guidance)
        times = torch.full((len(x_t),), float(t), device=x_t.device)
        return htransform(x_t, times, x0, eps, guidance, condition)

    return denoise
