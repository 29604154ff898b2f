"""Denoising diffusion implicit models (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from deft_ct.diffusion.schedule import Schedule
from deft_ct.runtime.seeds import normal_like

Denoiser = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""``denoiser(x_t, t) -> (x0, eps)``: estimates of the clean image and of the noise, conditional or not."""


def ddim(
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    times: Sequence[int],
    *,
    eta: float = 0.0,
    generators: Sequence[torch.Generator] = (),
    callback: Callable[[int], None] | None = None,
) -> Tensor:
    """Sample an image from noise with a denoiser.

    Args:
        denoiser: conditional or unconditional.
        x: ``(B, C, H, W)`` at the first time, usually standard normal.
        schedule: noise schedule of the denoiser.
        times: strictly decreasing; the step after the last one goes to clean data.
        eta: 0 for the deterministic ODE, 1 for ancestral sampling.
        generators: one for each image; needed when ``eta > 0``.
        callback: called with the number of steps done.

    Returns:
        The clean image of the last step, ``(B, C, H, W)``.

    Raises:
        ValueError: times do not decrease, or ``eta`` lies outside [0, 1].
    """
    x0 = x
    for done, (t, s) in enumerate(pairs(times), start=1):
        x0, eps = denoiser(x, t)
        signal, direction, fresh = ddim_coefficients(schedule, t, s, eta)
        x = signal * x0 + direction * eps
        if fresh > 0:
            x = x + fresh * normal_like(x, generators)
        if callback is not None:
            callback(done)
    return x0


def pairs(times: Sequence[int]) -> list[tuple[int, int]]:
    """Each time with the one it steps to; the last goes to clean data, -1.

    Raises:
        ValueError: the times do not decrease.
    """
    if any(later >= earlier for earlier, later in pairwise(times)):
        raise ValueError(f"times must be strictly decreasing, got {list(times)}")
    return list(zip(times, [*times[1:], -1], strict=True))


def ddim_coefficients(schedule: Schedule, t: float, s: float, eta: float) -> tuple[float, float, float]:
    """``(a, b, c)`` of the step ``x_s = a x0 + b eps + c n`` from time ``t`` to ``s`` (eq. 12 and 16).

    Raises:
        ValueError: ``eta`` lies outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    a_t, a_s = float(schedule.alpha_bar(t)), float(schedule.alpha_bar(s))
    fresh = eta * ((1 - a_t / a_s) * (1 - a_s) / (1 - a_t)) ** 0.5
    return a_s**0.5, (1 - a_s - fresh**2) ** 0.5, fresh
