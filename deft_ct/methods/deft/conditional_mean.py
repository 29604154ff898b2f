"""The posterior mean by the networks themselves, without samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from deft_ct.diffusion.samplers.ddim import Denoiser
from deft_ct.diffusion.schedule import Schedule

NOISIEST, CLEANEST = 0.8, 0.05
"""Noise of the first and of the last improvement, in the prior's range over the signal."""


def conditional_mean(
    denoise: Denoiser, schedule: Schedule, draw: Callable[[int], Tensor], *, draws: int, rounds: int
) -> Tensor:
    """The conditional estimate at the noisiest time, improved at lower noise.

    At the noisiest time ``x_t`` carries no information on the image, so the estimate there is ``E[x_0 | y]``, as good
    as the h-transform network alone. An improvement diffuses it to a lower noise and estimates again, where the prior
    helps. For a Gaussian posterior of mean ``m`` and spread ``s``, an exact denoiser maps ``r`` at the noise ``sigma``
    to ``m + g (r - m) + g sigma z`` with ``g = s^2 / (s^2 + sigma^2)``: the error shrinks by ``g``. Estimates of noise
    of both signs are averaged, so the last term goes away.

    Args:
        denoise: estimates under the data.
        schedule: of the prior.
        draw: the k-th standard normal image ``(B, C, H, W)``.
        draws: noise images that an estimate averages over.
        rounds: improvements, at noise that falls evenly in its logarithm from :data:`NOISIEST` to :data:`CLEANEST`.
            Each takes two evaluations for each draw.

    Returns:
        ``(B, C, H, W)`` in the prior's range.
    """
    start = [denoise(draw(k), schedule.steps - 1)[0] for k in range(draws)]
    mean = torch.stack(start).mean(0)
    for number, time in enumerate(improvement_times(schedule, rounds), 1):
        noises = [draw(number * draws + k) for k in range(draws)]
        at = torch.as_tensor(time, device=mean.device)
        estimates = [
            denoise(schedule.add_noise(mean, sign * noise, at), time)[0] for noise in noises for sign in (1, -1)
        ]
        mean = torch.stack(estimates).mean(0)
    return mean


def improvement_times(schedule: Schedule, rounds: int) -> list[int]:
    """Times of the improvements, from noisy to clean; the last one alone if there is one."""
    if not rounds:
        return []
    levels = np.geomspace(NOISIEST, CLEANEST, rounds) if rounds > 1 else [CLEANEST]
    return [int((schedule.sigmas.log() - math.log(level)).abs().argmin()) for level in levels]
