"""Noise schedule of a variance-preserving diffusion, and conversions between its parametrisations.

The forward process is ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) z`` with ``z ~ N(0, I)`` and integer times
``t = 0 .. steps - 1``; ``abar_{-1} = 1`` is clean data (Ho et al. 2020, arXiv 2006.11239, eq. 4). Times between two
integers interpolate the log of the signal-to-noise ratio, so continuous-time samplers may use the same object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A discrete variance-preserving noise schedule.

    Args:
        steps: number of times, 1000 for every common prior.
        beta_start: variance added by the first step.
        beta_end: variance added by the last step.
        kind: how beta grows: ``"linear"`` (DDPM), ``"scaled_linear"`` (linear in sqrt(beta)) or
            ``"squaredcos_cap_v2"`` (cosine, Nichol and Dhariwal 2021). The names are those of diffusers.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    kind: BetaSchedule = "linear"

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"steps must be at least 2, got {self.steps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(f"need 0 < beta_start <= beta_end < 1, got {self.beta_start} and {self.beta_end}")
        if self.kind not in ("linear", "scaled_linear", "squaredcos_cap_v2"):
            raise ValueError(f"unknown schedule {self.kind!r}; known: linear, scaled_linear, squaredcos_cap_v2")

    @cached_property
    def alpha_bars(self) -> Tensor:
        """``abar_t`` for ``t = 0 .. steps - 1``, float64, shape ``(steps,)``."""
        if self.kind == "linear":
            betas = torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)
        elif self.kind == "scaled_linear":
            betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64) ** 2
        else:
            grid = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            level = torch.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
            betas = (1 - level[1:] / level[:-1]).clamp_max(0.999)
        return torch.cumprod(1 - betas, 0)

    def alpha_bar(self, t: Tensor | float) -> Tensor:
        """``abar_t`` at integer or fractional times; anything below 0 is clean data, ``abar = 1``.

        Args:
            t: times in ``[-1, steps - 1]``, any shape.

        Returns:
            float64 tensor of the shape of ``t``, on its device.
        """
        times = torch.as_tensor(t)
        table = self.alpha_bars.to(times.device)
        position = times.to(torch.float64).clamp(0, self.steps - 1)
        below = position.floor().long()
        above = (below + 1).clamp_max(self.steps - 1)
        log_snr = torch.logit(table)
        value = torch.sigmoid(torch.lerp(log_snr[below], log_snr[above], position - below))
        value = torch.where(position == below, table[below], value)
        return torch.where(times < 0, torch.ones_like(value), value)

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``(sqrt(abar_t), sqrt(1 - abar_t))`` shaped to broadcast over ``like``.

        Args:
            t: times, ``(B,)`` or a scalar.
            like: ``(B, ...)``, gives dtype, device and rank.
        """
        abar = self.alpha_bar(torch.as_tensor(t, device=like.device))
        shape = (-1,) + (1,) * (like.ndim - 1)
        return abar.sqrt().to(like.dtype).reshape(shape), (1 - abar).sqrt().to(like.dtype).reshape(shape)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``x_t`` from clean ``x0`` and standard normal ``noise``, both ``(B, ...)``."""
        signal, spread = self.coefficients(t, x0)
        return signal * x0 + spread * noise

    def x0_from_eps(self, x_t: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Tweedie's estimate ``(x_t - sqrt(1 - abar) eps) / sqrt(abar)``, not clamped."""
        signal, spread = self.coefficients(t, x_t)
        return (x_t - spread * eps) / signal

    def eps_from_x0(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The noise that belongs to an estimate of ``x_0``."""
        signal, spread = self.coefficients(t, x_t)
        return (x_t - signal * x0) / spread

    def x0_eps_from_v(self, x_t: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(x_0, eps)`` from the velocity ``v = sqrt(abar) eps - sqrt(1 - abar) x_0`` (Salimans and Ho 2022)."""
        signal, spread = self.coefficients(t, x_t)
        return signal * x_t - spread * v, spread * x_t + signal * v

    def velocity(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``v`` of clean data and noise, the inverse of :meth:`x0_eps_from_v`."""
        signal, spread = self.coefficients(t, x0)
        return signal * noise - spread * x0


def time_grid(schedule: Schedule, count: int, *, last: float | None = None) -> list[int]:
    """Times from noisy to clean, evenly spaced, for ``count`` network evaluations.

    Args:
        schedule: gives the number of training times.
        count: number of evaluations, at most ``schedule.steps``.
        last: noisiest time; ``steps - 1`` when left out.

    Returns:
        ``count`` strictly decreasing integer times; the step after the last one goes to clean data.

    Raises:
        ValueError: ``count`` is out of range.
    """
    top = schedule.steps - 1 if last is None else int(last)
    if not 1 <= count <= top + 1:
        raise ValueError(f"the number of steps must lie in 1..{top + 1}, got {count}")
    spacing = (top + 1) / count
    return [round(top - k * spacing) for k in range(count)]
