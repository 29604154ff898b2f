"""Doob's h-transform in closed form: data that are the image itself with white noise.

Given ``x_0``, the data ``y = x_0 + s n`` and the diffused image ``x_t / sqrt(abar_t) = x_0 + sigma_t n'`` are two
independent noisy images. Their mean, weighted with ``1 / s^2`` and ``1 / sigma_t^2``, holds all that both say of
``x_0``, and its noise has the variance ``1 / (1 / s^2 + 1 / sigma_t^2)``. So ``E[x_0 | x_t, y]`` is the estimate of the
prior for this mean at the time of this noise: the posterior's score (DEFT, arXiv 2406.01781, Prop. 2.2) without a
network to be trained. At the noisiest time it is the posterior mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import Denoiser
from deft_ct.measurement.data_term import per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.identity import Identity


def is_noisy_image(measurement: Measurement) -> bool:
    """Whether the data are the image itself with white noise, of a level that is known or estimated."""
    return isinstance(measurement.operator, Identity) and measurement.noise.white


def noisy_image_denoiser(prior: Prior, likelihood: Likelihood) -> Denoiser:
    """The prior given a noisy image, as a denoiser; one evaluation of the prior for each call.

    Args:
        prior: frozen; evaluated without a graph.
        likelihood: data ``(B, *image_shape)`` for which :func:`is_noisy_image` holds.
    """
    schedule = prior.schedule
    image = likelihood.to_physical.inverse(likelihood.y)
    precision = likelihood.weights.flatten(1).mean(1) * _squared_scale(likelihood)

    @torch.no_grad()
    def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
        signal, noise = schedule.coefficients(torch.as_tensor(t), x_t)
        own = (signal / noise).square()
        total = own + per_sample(precision, x_t)
        both = (own * (x_t / signal) + per_sample(precision, x_t) * image) / total
        times = schedule.time_of(total.flatten().rsqrt().expand(len(x_t)))
        x0 = prior.predict(schedule.coefficients(times, x_t)[0] * both, times)[0]
        return x0, (x_t - signal * x0) / noise

    return denoise


def _squared_scale(likelihood: Likelihood) -> Tensor:
    """Of the map from the prior's range to the data, ``(B,)``."""
    scale = likelihood.to_physical.scale
    values = scale.flatten() if isinstance(scale, Tensor) else likelihood.y.new_full((1,), scale)
    return values.to(likelihood.y).square().expand(len(likelihood.y))
