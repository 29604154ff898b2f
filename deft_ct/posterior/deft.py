"""DEFT: sampling of the posterior with a learned h-transform (Denker et al. 2024, arXiv 2406.01781)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deft_ct.htransform import Condition, HTransform, condition_for
from deft_ct.measurement import Likelihood
from deft_ct.posterior.sampling import Chunk, PosteriorSampler, SamplerConfig, Walk
from deft_ct.priors import Prior
from deft_ct.samplers import Denoiser, ddim
from deft_ct.schedule import time_grid


@dataclass(frozen=True, kw_only=True)
class DEFTConfig(SamplerConfig):
    """How DEFT samples; see :class:`~deft_ct.posterior.sampling.SamplerConfig`."""

    steps: int = 20


class DEFT(PosteriorSampler):
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

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        times = time_grid(self.prior.schedule, self.config.steps)
        condition = condition_for(likelihood, self.htransform.config).repeat(count)

        def walk(chunk: Chunk) -> Tensor:
            return ddim(
                conditional_denoiser(self.prior, self.htransform, chunk.likelihood, condition[chunk.part]),
                chunk.start,
                self.prior.schedule,
                times,
                eta=self.config.eta,
                generators=chunk.generators,
                callback=chunk.tick,
            )

        return walk


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
