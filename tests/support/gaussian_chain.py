"""The controlled chain of a Gaussian world in closed form, for steps of any size.

The prior's ancestral sampler is ``x_s = A x_t + f + c n`` and ends in ``x_0 = D x + e``. With the log likelihood
``-x^T L x / 2 + l^T x + k`` of its last state, every ``ln h_t`` is such a quadratic (a Riccati recursion).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from gaussian import Gaussian
from torch import Tensor, nn

from deft_ct.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Quadratic:
    """``-x^T L x / 2 + l^T x + k``, float64."""

    curvature: Tensor
    slope: Tensor
    constant: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return -0.5 * ((x @ self.curvature) * x).sum(1) + x @ self.slope + self.constant


@dataclass(frozen=True)
class Kernel:
    """``x_s = A x_t + f + c n`` with ``gain`` from ``eps_h`` to the control, and ``sqrt(1 - abar_t)``."""

    matrix: Tensor
    offset: Tensor
    spread: float
    gain: float
    noise: float


class GaussianChain:
    """The prior's chain of a Gaussian on a grid of times.

    Written from the posterior ``q(x_s | x_t, x_0)`` of the forward process (Ho et al. 2020, eq. 6-7).
    """

    def __init__(self, gaussian: Gaussian, schedule: Schedule, times: list[int]) -> None:
        self.times, self.size = times, len(gaussian.mean)
        self.kernels = {}
        for t, s in pairwise(times):
            a_t, a_s = float(schedule.alpha_bar(t)), float(schedule.alpha_bar(s))
            denoise, shift = self._denoiser(gaussian, a_t)
            alpha, beta = a_t / a_s, 1 - a_t / a_s
            on_x0, on_xt = a_s**0.5 * beta / (1 - a_t), alpha**0.5 * (1 - a_s) / (1 - a_t)
            spread = (beta * (1 - a_s) / (1 - a_t)) ** 0.5
            # eps_h moves x0 by -sqrt((1 - a) / a) eps_h at fixed x_t, and so the mean by on_x0 times that
            gain = -on_x0 * ((1 - a_t) / a_t) ** 0.5 / spread
            matrix = on_x0 * denoise + on_xt * torch.eye(self.size)
            self.kernels[t] = Kernel(matrix, on_x0 * shift, spread, gain, (1 - a_t) ** 0.5)
        self.last, self.last_shift = self._denoiser(gaussian, float(schedule.alpha_bar(times[-1])))

    def _denoiser(self, gaussian: Gaussian, a: float) -> tuple[Tensor, Tensor]:
        matrix = a**0.5 * gaussian.cov @ torch.linalg.inv(a * gaussian.cov + (1 - a) * torch.eye(self.size).double())
        return matrix, gaussian.mean - a**0.5 * matrix @ gaussian.mean

    def prior(self) -> Gaussian:
        """Law of the clean images of the uncontrolled chain."""
        mean, cov = torch.zeros(self.size).double(), torch.eye(self.size).double()
        for kernel in self.kernels.values():
            mean = kernel.matrix @ mean + kernel.offset
            cov = kernel.matrix @ cov @ kernel.matrix.T + kernel.spread**2 * torch.eye(self.size)
        return Gaussian(self.last @ mean + self.last_shift, self.last @ cov @ self.last.T)

    def values(self, clean: Quadratic) -> dict[int, Quadratic]:
        """``ln h_t`` at every time, from the log likelihood of the clean image."""
        turned = self.last.T @ clean.curvature
        slope = self.last.T @ clean.slope - turned @ self.last_shift
        value = Quadratic(turned @ self.last, slope, clean(self.last_shift[None])[0])
        found = {self.times[-1]: value}
        for t, kernel in reversed(self.kernels.items()):
            inner = torch.linalg.inv(torch.eye(self.size) + kernel.spread**2 * value.curvature)
            curvature, slope = value.curvature @ inner, inner @ value.slope
            constant = value.constant + kernel.offset @ slope - 0.5 * kernel.offset @ curvature @ kernel.offset
            constant = constant + 0.5 * kernel.spread**2 * value.slope @ slope + 0.5 * torch.logdet(inner)
            value = Quadratic(
                kernel.matrix.T @ curvature @ kernel.matrix,
                kernel.matrix.T @ (slope - curvature @ kernel.offset),
                constant,
            )
            found[t] = value
        return found

    def log_evidence(self, clean: Quadratic) -> Tensor:
        """``ln E_P[p(y | x_0)]`` with the start ``N(0, I)``."""
        value = self.values(clean)[self.times[0]]
        inner = torch.linalg.inv(torch.eye(self.size) + value.curvature)
        return value.constant + 0.5 * value.slope @ inner @ value.slope + 0.5 * torch.logdet(inner)


def gaussian_log_likelihood(matrix: Tensor, sigma: float, y: Tensor) -> Quadratic:
    """``ln N(y; A x, sigma^2 I)``."""
    constant = -0.5 * (y / sigma).square().sum() - len(y) * torch.tensor(sigma * (2 * torch.pi) ** 0.5).double().log()
    return Quadratic(matrix.T @ matrix / sigma**2, matrix.T @ y / sigma**2, constant)


class ExactHead(nn.Module):
    """The mean of the exact kernels of the conditional chain, as a head; ``strength`` below 1 makes it too weak."""

    def __init__(self, chain: GaussianChain, clean: Quadratic, strength: float = 1.0) -> None:
        super().__init__()
        self.chain, self.strength = chain, strength
        self.value_after = dict(zip(chain.times, list(reversed(chain.values(clean).values()))[1:], strict=False))

    def forward(self, x_t: Tensor, t: Tensor, x0: Tensor, eps: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        kernel, value = self.chain.kernels[int(t[0])], self.value_after[int(t[0])]
        mean = x_t.flatten(1) @ kernel.matrix.T + kernel.offset
        inner = torch.linalg.inv(torch.eye(self.chain.size) + kernel.spread**2 * value.curvature)
        moved = (mean + kernel.spread**2 * value.slope) @ inner.T
        eps_h = self.strength * (moved - mean) / kernel.spread / kernel.gain
        return x0, eps + eps_h.reshape(eps.shape)


class LinearHead(nn.Module):
    """A matrix times the score of the likelihood at ``x0h`` for each time of a grid: it holds the exact head."""

    def __init__(self, chain: GaussianChain) -> None:
        super().__init__()
        self.index = {t: k for k, t in enumerate(chain.kernels)}
        self.matrix = nn.Parameter(torch.zeros(len(self.index), chain.size, chain.size, dtype=torch.float64))
        self.scale = [kernel.noise for kernel in chain.kernels.values()]

    def forward(
        self, x_t: Tensor, t: Tensor, x0: Tensor, eps: Tensor, guidance: Tensor, _: object
    ) -> tuple[Tensor, Tensor]:
        k = self.index[int(t[0])]
        eps_h = -0.1 * self.scale[k] * guidance.flatten(1) @ self.matrix[k].T
        return x0, eps + eps_h.reshape(eps.shape)
