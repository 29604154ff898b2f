"""DEFT: sampling of the posterior with a learned h-transform (Denker et al. 2024, arXiv 2406.01781)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from deft_ct.htransform import Condition, HTransform, condition_for
from deft_ct.htransform.domain import outside_training
from deft_ct.measurement import Likelihood
from deft_ct.posterior.sampling import Chunk, PosteriorSampler, SamplerConfig, Walk, check_counts
from deft_ct.priors import Prior
from deft_ct.reconstructor import Estimate, Request
from deft_ct.samplers import Denoiser, ddim
from deft_ct.schedule import time_grid
from deft_ct.seeds import generator_for, normal_like


@dataclass(frozen=True, kw_only=True)
class DEFTConfig(SamplerConfig):
    """How DEFT samples; see :class:`~deft_ct.posterior.sampling.SamplerConfig`.

    Args:
        estimate: what the reconstruction is. ``"samples"``: the mean of the samples, which carries their spread as
            noise, ``spread / sqrt(num_samples)``. ``"mean"``: the conditional estimate at the noisiest time, where
            ``x_t`` says nothing of the image, so that it is itself an estimate of ``E[x_0 | y]``; samples are then
            drawn only if more than one is asked for, and give the spread.
        draws: noise images that ``"mean"`` averages over, one evaluation each.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 20
    estimate: Literal["samples", "mean"] = "samples"
    draws: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(draws=self.draws)
        if self.estimate not in ("samples", "mean"):
            raise ValueError(f"estimate must be samples or mean, got {self.estimate!r}")


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

    def _estimate(self, request: Request) -> Estimate:
        if self.config.estimate == "samples":
            return super()._estimate(request)
        samples = super()._estimate(request).samples if request.num_samples > 1 else None
        return Estimate(mean=self._conditional_mean(request), samples=samples)

    @torch.no_grad()
    def _conditional_mean(self, request: Request) -> Tensor:
        likelihood = request.measurement.likelihood(request.y, self.prior.value_range)
        condition = condition_for(likelihood, self.htransform.config)
        noisiest = self.prior.schedule.steps - 1
        shape = (1, self.prior.channels, *request.measurement.operator.domain_shape[-2:])
        means = []
        for i, key in enumerate(request.keys):
            part = slice(i, i + 1)
            denoise = conditional_denoiser(self.prior, self.htransform, likelihood[part], condition[part])
            total = torch.zeros(shape, dtype=request.y.dtype, device=request.y.device)
            for k in range(self.config.draws):
                start = normal_like(total, [generator_for(request.seed, "deft mean", key, k)])
                total += denoise(start, noisiest)[0]
            means.append(total / self.config.draws)
        return likelihood.to_physical(torch.cat(means))

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        for difference in outside_training(self.htransform.card, likelihood.measurement):
            warnings.warn(f"the h-transform was {difference}: expect a worse result", UserWarning, stacklevel=2)
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
