"""The samplers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from deft_ct.diffusion.samplers.ddim import Denoiser, ddim
from deft_ct.diffusion.samplers.dpm_solver import dpm_solver
from deft_ct.diffusion.schedule import Schedule

SamplerName = Literal["ddim", "dpm-solver"]
SAMPLERS: tuple[SamplerName, ...] = ("ddim", "dpm-solver")


def walk(
    sampler: SamplerName,
    denoiser: Denoiser,
    x: Tensor,
    schedule: Schedule,
    times: Sequence[int],
    *,
    eta: float = 0.0,
    generators: Sequence[torch.Generator] = (),
    callback: Callable[[int], None] | None = None,
) -> Tensor:
    """Walk a denoiser from noise to an image by :func:`ddim` (first order) or :func:`dpm_solver` (second order).

    Args:
        sampler: ``"ddim"`` or ``"dpm-solver"``.
        denoiser: conditional or unconditional.
        x: ``(B, C, H, W)`` at the first time.
        schedule: noise schedule of the denoiser.
        times: strictly decreasing.
        eta: 0 for the deterministic ODE, 1 for the reverse SDE.
        generators: one for each image; needed when ``eta > 0``.
        callback: called with the number of steps done.

    Returns:
        The clean image of the last step, ``(B, C, H, W)``.

    Raises:
        ValueError: the sampler is unknown, or see the samplers.
    """
    check_sampler(sampler)
    chosen = ddim if sampler == "ddim" else dpm_solver
    return chosen(denoiser, x, schedule, times, eta=eta, generators=generators, callback=callback)


def check_sampler(sampler: str) -> None:
    """Refuse unknown samplers.

    Raises:
        ValueError: the message lists the known ones.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; known: {', '.join(SAMPLERS)}")
