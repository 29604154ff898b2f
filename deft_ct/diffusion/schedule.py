"""Noise schedule of a variance-preserving diffusion, and conversions between its parametrisations.

The forward process is ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) z`` with ``z ~ N(0, I)`` and integer times
``t = 0 .. steps - 1``; ``abar_{-1} = 1`` is clean data (Ho et al. 2020, arXiv 2006.11239, eq. 4). Times between two
integers interpolate the log of the signal-to-noise ratio, so continuous-time samplers may use the same object. The
continuous VP-SDE has its own times, see :class:`Schedule`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from deft_ct.runtime.fields import check_fields

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "vp_sde"]
Spacing = Literal["uniform", "quadratic", "log_snr", "karras"]
SPACINGS: tuple[Spacing, ...] = ("uniform", "quadratic", "log_snr", "karras")
KARRAS_RHO = 7.0
MOST_STEPS = 1_000_000
SIGMA_MAX = 80.0
"""Noise above this (Karras et al. 2022, table 1) gets one evaluation: images lie in [-1, 1], nothing is left of them.
Schedules that end higher, the cosine one above all, would spend most of a ``"log_snr"`` or ``"karras"`` grid there."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A variance-preserving noise schedule, discrete or continuous in time.

    ``"vp_sde"`` is the continuous one (Song et al. 2021, arXiv 2011.13456, eq. 11): with ``u = (t + 1) / steps``,
    ``abar = exp(-steps (beta_start u + (beta_end - beta_start) u^2 / 2))`` at every real ``t`` from -1 to
    ``steps - 1``. The defaults are then the usual rates 0.1 and 20 of the SDE on ``u`` in [0, 1], and ``"linear"`` is
    its discretisation. Networks for it are trained at real times.

    Args:
        steps: number of times, 1000 for every common prior.
        beta_start: variance added by the first step.
        beta_end: variance added by the last step.
        kind: how beta grows. Three names are from diffusers: ``"linear"`` as in DDPM, ``"scaled_linear"`` for linear
            growth of sqrt(beta), and ``"squaredcos_cap_v2"`` for the cosine of Nichol and Dhariwal 2021. The fourth is
            ``"vp_sde"``.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    kind: BetaSchedule = "linear"

    def __post_init__(self) -> None:
        check_fields(self)
        if not 2 <= self.steps <= MOST_STEPS:
            raise ValueError(f"steps must lie in 2..{MOST_STEPS}, got {self.steps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(f"need 0 < beta_start <= beta_end < 1, got {self.beta_start} and {self.beta_end}")

    @property
    def continuous(self) -> bool:
        """Whether times are real numbers."""
        return self.kind == "vp_sde"

    @cached_property
    def alpha_bars(self) -> Tensor:
        """``abar_t`` for ``t = 0 .. steps - 1``, float64, shape ``(steps,)``."""
        if self.continuous:
            return self._vp_sde(torch.arange(self.steps, dtype=torch.float64))
        if self.kind == "linear":
            betas = torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)
        elif self.kind == "scaled_linear":
            betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64) ** 2
        else:
            grid = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            level = torch.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
            betas = (1 - level[1:] / level[:-1]).clamp_max(0.999)
        return torch.cumprod(1 - betas, 0)

    def _vp_sde(self, t: Tensor) -> Tensor:
        u = (t + 1) / self.steps
        return torch.exp(-self.steps * u * (self.beta_start + (self.beta_end - self.beta_start) * u / 2))

    @property
    def sigmas(self) -> Tensor:
        """Noise relative to the signal, ``sqrt((1 - abar) / abar)``, increasing; as :attr:`alpha_bars`."""
        return (1 / self.alpha_bars - 1).sqrt()

    def alpha_bar(self, t: Tensor | float) -> Tensor:
        """``abar_t`` at integer or fractional times; anything below 0 is clean data, ``abar = 1``.

        Args:
            t: times in ``[-1, steps - 1]``, any shape.

        Returns:
            float64 tensor of the shape of ``t``, on its device.
        """
        times = torch.as_tensor(t)
        if self.continuous:
            return self._vp_sde(times.to(torch.float64).clamp(-1, self.steps - 1))
        table = self.alpha_bars.to(times.device)
        position = times.to(torch.float64).clamp(0, self.steps - 1)
        below = position.floor().long()
        above = (below + 1).clamp_max(self.steps - 1)
        log_snr = torch.logit(table)
        value = torch.sigmoid(torch.lerp(log_snr[below], log_snr[above], position - below))
        value = torch.where(position == below, table[below], value)
        return torch.where(times < 0, torch.ones_like(value), value)

    def time_of(self, sigma: Tensor) -> Tensor:
        """The fractional time at which the noise relative to the signal is ``sigma``; inverse of :attr:`sigmas`.

        Args:
            sigma: above 0, any shape. Values outside of the schedule get its first or last time.

        Returns:
            float32 tensor of the shape of ``sigma``, on its device.
        """
        log_snr = -2 * sigma.to(torch.float64).log()
        if self.continuous:
            growth, decay = self.beta_end - self.beta_start, torch.nn.functional.softplus(-log_snr) / self.steps
            u = 2 * decay / (self.beta_start + (self.beta_start**2 + 2 * growth * decay).sqrt())
            return (self.steps * u - 1).clamp(0, self.steps - 1).to(torch.float32)
        table = torch.logit(self.alpha_bars).to(sigma.device)  # falls with time
        above = torch.searchsorted(-table, -log_snr).clamp(1, self.steps - 1)
        share = (table[above - 1] - log_snr) / (table[above - 1] - table[above])
        return (above - 1 + share).clamp(0, self.steps - 1).to(torch.float32)

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


def time_grid(schedule: Schedule, count: int, *, last: float | None = None, spacing: Spacing = "uniform") -> list[int]:
    """Times from noisy to clean for ``count`` network evaluations; the step after the last one goes to clean data.

    The last step returns the denoiser's image, the mean over all images that fit its noise level. Let ``sigma^2 = (1 -
    abar) / abar`` at the last time. Detail finer than the noise ``sigma`` is averaged away, and a standard deviation
    ``s`` comes out as ``s^2 / sqrt(s^2 + sigma^2)`` at best. With few evaluations a uniform grid ends early (20 of 1000
    linear steps end at ``sigma = 0.18``). The other grids end near the cleanest time.

    Args:
        schedule: gives the number of training times, and their noise levels.
        count: number of evaluations, at most one for each time.
        last: noisiest time; ``steps - 1`` when left out.
        spacing: the quantity in which the grid is uniform.

            - ``"uniform"``: ``t``.
            - ``"quadratic"``: ``sqrt(t)`` (Song et al. 2021, arXiv 2010.02502, sec. D.2).
            - ``"log_snr"``: log of the signal-to-noise ratio (Lu et al. 2022, arXiv 2206.00927, sec. 3.3).
            - ``"karras"``: ``sigma^(1/7)`` (Karras et al. 2022, arXiv 2206.00364, eq. 5).

    Returns:
        ``count`` strictly decreasing integer times, the first of them ``last``.

    Raises:
        ValueError: ``count`` is out of range, or the spacing is unknown.
    """
    top = schedule.steps - 1 if last is None else int(last)
    if not 1 <= count <= top + 1:
        raise ValueError(f"the number of steps must lie in 1..{top + 1}, got {count}")
    if spacing not in SPACINGS:
        raise ValueError(f"unknown grid {spacing!r}; known: {', '.join(SPACINGS)}")
    done = np.arange(count)
    if spacing == "uniform":
        wanted = top - done * ((top + 1) / count)
    elif spacing == "quadratic":
        wanted = (top + 1) * (1 - done / count) ** 2 - 1
    else:
        sigma = schedule.sigmas[: top + 1].numpy()
        scale = np.log(sigma) if spacing == "log_snr" else sigma ** (1 / KARRAS_RHO)
        highest = scale[np.searchsorted(sigma, min(SIGMA_MAX, sigma[-1]))]
        wanted = np.interp(np.linspace(highest, scale[0], count), scale, np.arange(top + 1))
        wanted[0] = top
    times: list[int] = []
    for k, time in enumerate(np.rint(wanted).astype(int)):  # every evaluation has a time of its own
        times.append(int(np.clip(time, count - 1 - k, times[-1] - 1 if times else top)))
    return times
