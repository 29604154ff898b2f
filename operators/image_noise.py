"""Noise models of photographs: photon-limited images, and Gaussian noise of a level that nobody tells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deft_ct.operators.noise import Generators, NoiseModel, generators_for, standard_normal

__all__ = ["PhotonNoise", "UnknownGaussianNoise", "noise_level"]


@dataclass(frozen=True)
class PhotonNoise(NoiseModel):
    """Photon counting of light: ``counts ~ Poisson(peak * v)``, with ``v`` the brightness of the noise-free data.

    The brightness is 0 at the lower and 1 at the upper end of the value range, and the data are the counts on that
    range: ``y = low + (high - low) counts / peak``. Not the transmission of rays, which is
    :class:`~deft_ct.operators.noise.PoissonNoise`.

    Args:
        peak: expected photons of the brightest value; 30 is dark, 1000 bright.
        low: value without light.
        high: value of the peak.

    Raises:
        ValueError: the peak is not positive, or the range is empty.
    """

    peak: float
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.peak) and self.peak > 0):
            raise ValueError(f"PhotonNoise: peak must be a positive number of photons, e.g. 100, got {self.peak!r}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"PhotonNoise: expected finite low < high, e.g. -1 and 1, got {self.low} and {self.high}")

    @property
    def _gain(self) -> float:
        """Data units of one photon."""
        return (self.high - self.low) / self.peak

    def _rate(self, clean: Tensor) -> Tensor:
        return ((clean.double() - self.low) / self._gain).clamp_min(0)

    def _counts(self, y: Tensor) -> Tensor:
        return ((y.double() - self.low) / self._gain).clamp_min(0)

    def sample(self, clean: Tensor, generator: Generators) -> Tensor:
        """Counts on the value range; darker than ``low`` counts as no light. See :meth:`NoiseModel.sample`.

        Raises:
            ValueError: ``clean`` holds NaN or infinite values.
        """
        if not bool(torch.isfinite(clean).all()):
            raise ValueError("PhotonNoise: clean holds NaN or infinite values")
        rates = self._rate(clean)
        counts = torch.stack([
            torch.poisson(rate.to(source.device), generator=source).to(rate.device)
            for rate, source in zip(rates, generators_for(rates, generator), strict=True)
        ])  # fmt: skip
        return (self.low + self._gain * counts).to(clean.dtype)

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        """``n log(r) - r - log Gamma(n + 1)``, summed, with ``n`` counts and the rate ``r`` (at least 1e-3)."""
        rate, counts = self._rate(clean).clamp_min(_DARKEST), self._counts(y)
        terms = counts * rate.log() - rate - torch.lgamma(counts + 1)
        return terms.flatten(1).sum(1).to(clean.dtype)

    def score(self, clean: Tensor, y: Tensor) -> Tensor:
        """``(n / r - 1) / gain`` with the rate at least half a photon, so that darkness has no infinite pull."""
        rate = self._rate(clean).clamp_min(_DARK)
        return ((self._counts(y) / rate - 1) / self._gain).to(clean.dtype)

    def variance(self, clean: Tensor) -> Tensor:
        """``gain^2 r``."""
        return (self._gain**2 * self._rate(clean)).to(clean.dtype)

    def weights(self, y: Tensor) -> Tensor:
        """The inverse variance for ``n + 1/2`` photons: without the half, no count would weigh infinitely."""
        return (1 / (self._gain**2 * (self._counts(y) + _DARK))).to(y.dtype)


@dataclass(frozen=True)
class UnknownGaussianNoise(NoiseModel):
    """White Gaussian noise whose level is drawn for each image and not told: it is estimated from the data.

    For data that are images, ``(B, C, H, W)``: denoising, inpainting without large holes, blurs.

    Args:
        low: smallest standard deviation that is drawn, in the unit of the data.
        high: largest one.

    Raises:
        ValueError: not ``0 < low <= high``.
    """

    white: ClassVar[bool] = True
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high) and 0 < self.low <= self.high):
            raise ValueError(
                f"UnknownGaussianNoise: expected 0 < low <= high, e.g. 0.05 and 0.5, got {self.low}, {self.high}"
            )

    def level(self, y: Tensor) -> Tensor:
        """Estimated standard deviation of each image within the limits, shaped to broadcast over ``y``."""
        return noise_level(y).clamp(self.low, self.high).reshape(-1, *(1,) * (y.ndim - 1))

    def sample(self, clean: Tensor, generator: Generators) -> Tensor:
        """Add noise of a level drawn uniformly between the limits; see :meth:`NoiseModel.sample`."""
        sources = generators_for(clean, generator)
        drawn = [
            float(torch.rand((), generator=source, dtype=torch.float64, device=source.device)) for source in sources
        ]
        levels = self.low + (self.high - self.low) * torch.tensor(drawn, dtype=torch.float64)
        noise = standard_normal(clean, generator)
        return clean + levels.to(clean).reshape(-1, *(1,) * (clean.ndim - 1)) * noise

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        """That of Gaussian noise of the estimated level."""
        level = self.level(y).expand_as(y)
        terms = -0.5 * ((y - clean) / level).square() - level.log() - 0.5 * math.log(2 * math.pi)
        return terms.flatten(1).sum(1)

    def score(self, clean: Tensor, y: Tensor) -> Tensor:
        """``(y - clean) / level^2``."""
        return (y - clean) / self.level(y).square()

    def variance(self, clean: Tensor) -> Tensor:
        """The mean square of the levels that are drawn."""
        mean_square = (self.low**2 + self.low * self.high + self.high**2) / 3
        return torch.full_like(clean, mean_square)

    def weights(self, y: Tensor) -> Tensor:
        """``1 / level^2`` of each image."""
        return self.level(y).square().reciprocal().expand_as(y).clone()


def noise_level(y: Tensor) -> Tensor:
    """Standard deviation of white noise in images, from their finest diagonal details.

    The median of ``|a - b - c + d| / 2`` over blocks of 2 x 2 pixels, over 0.6745 (Donoho and Johnstone, Biometrika
    1994): smooth parts and straight edges have none of these details. Fine texture counts as noise.

    Args:
        y: ``(B, C, H, W)``, at least 2 x 2 pixels.

    Returns:
        ``(B,)``.

    Raises:
        ValueError: another shape.
    """
    if y.ndim != 4 or min(y.shape[-2:]) < 2:
        raise ValueError(f"noise_level needs images (B, C, H, W) of 2 x 2 pixels or more, got {tuple(y.shape)}")
    even = y[..., : y.shape[-2] // 2 * 2, : y.shape[-1] // 2 * 2]
    rows = even[..., ::2, :] - even[..., 1::2, :]
    details = (rows[..., ::2] - rows[..., 1::2]) / 2
    return details.abs().flatten(1).median(1).values / 0.6745


_DARK = 0.5
_DARKEST = 1e-3
