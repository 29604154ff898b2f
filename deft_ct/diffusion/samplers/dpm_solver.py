"""DPM-Solver++(2M): samplers of second order (Lu et al. 2022, arXiv 2211.01095, algorithm 2 and eq. 17)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deft_ct.diffusion.samplers.ddim import Denoiser, pairs
from deft_ct.diffusion.schedule import Schedule
from deft_ct.runtime.seeds import normal_like


def dpm_solver(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    times: Sequence[int],
    *,
    eta: float = 0.0,
    generators: Sequence[torch.Generator] = (),
    callback: Callable[[int], None] | None = None,
) -> Tensor:
    """Sample with a denoiser along the probability-flow ODE or the reverse SDE, one evaluation a step.

    The estimate of the clean image is extrapolated linearly in half the log of the signal-to-noise ratio, ``l``, from
    the two latest evaluations. With ``h = l_s - l_t`` and ``sigma = sqrt(1 - abar)`` a step is ``x_s = (sigma_s /
    sigma_t) e^(-eta h) x_t + sqrt(abar_s) (1 - e^(-(1 + eta) h)) x0 + sigma_s sqrt(1 - e^(-2 eta h)) n``: the ODE for
    ``eta = 0``, the SDE for ``eta = 1`` (SDE-DPM-Solver++; without extrapolation it is ancestral sampling). The first
    and the last step are of first order: there is nothing to extrapolate from, and at clean data ``l`` is infinite.

    Args:
        denoiser: conditional or unconditional; only its estimate of the clean image is used.
        x: ``(B, C, H, W)`` at the first time, usually standard normal.
        schedule: noise schedule of the denoiser.
        times: strictly decreasing; the step after the last one goes to clean data.
        eta: share of fresh noise, 0 to 1.
        generators: one for each image; needed when ``eta > 0``.
        callback: called with the number of steps done.

    Returns:
        The clean image of the last step, ``(B, C, H, W)``.

    Raises:
        ValueError: times do not decrease, or ``eta`` lies outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    x0, earlier, earlier_width = x, x, math.nan
    for done, (t, s) in enumerate(pairs(times), start=1):
        x0, _ = denoiser(x, t)
        if s >= 0:
            a_t, a_s = float(schedule.alpha_bar(t)), float(schedule.alpha_bar(s))
            width = 0.5 * (math.log(a_s / (1 - a_s)) - math.log(a_t / (1 - a_t)))
            slope = 0.0 if done == 1 else width / (2 * earlier_width)
            extrapolated = x0 + slope * (x0 - earlier)
            kept = ((1 - a_s) / (1 - a_t)) ** 0.5 * math.exp(-eta * width)
            x = kept * x - a_s**0.5 * math.expm1(-(1 + eta) * width) * extrapolated
            if eta > 0:
                x = x + (-(1 - a_s) * math.expm1(-2 * eta * width)) ** 0.5 * normal_like(x, generators)
            earlier, earlier_width = x0, width
        if callback is not None:
            callback(done)
    return x0
