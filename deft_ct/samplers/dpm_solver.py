"""DPM-Solver++(2M): a deterministic sampler of second order (Lu et al. 2022, arXiv 2211.01095, algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from deft_ct.samplers.ddim import Denoiser, pairs
from deft_ct.schedule import Schedule


def dpm_solver(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    times: Sequence[int],
    *,
    callback: Callable[[int], None] | None = None,
) -> Tensor:
    """Walk a denoiser along the probability-flow ODE, one evaluation a step.

    The estimate of the clean image is extrapolated linearly in half the log of the signal-to-noise ratio from the two
    latest evaluations. The first and the last step are of first order: there is nothing to extrapolate from, and at
    clean data that variable is infinite.

    Args:
        denoiser: conditional or unconditional; only its estimate of the clean image is used.
        x: ``(B, C, H, W)`` at the first time, usually standard normal.
        schedule: noise schedule of the denoiser.
        times: strictly decreasing; the step after the last one goes to clean data.
        callback: called with the number of steps done.

    Returns:
        The clean image of the last step, ``(B, C, H, W)``.

    Raises:
        ValueError: times do not decrease.
    """
    x0, earlier, earlier_width = x, x, math.nan
    for done, (t, s) in enumerate(pairs(times), start=1):
        x0, _ = denoiser(x, t)
        if s >= 0:
            a_t, a_s = float(schedule.alpha_bar(t)), float(schedule.alpha_bar(s))
            width = 0.5 * (math.log(a_s / (1 - a_s)) - math.log(a_t / (1 - a_t)))
            slope = 0.0 if done == 1 else width / (2 * earlier_width)
            extrapolated = x0 + slope * (x0 - earlier)
            x = ((1 - a_s) / (1 - a_t)) ** 0.5 * x - a_s**0.5 * math.expm1(-width) * extrapolated
            earlier, earlier_width = x0, width
        if callback is not None:
            callback(done)
    return x0
