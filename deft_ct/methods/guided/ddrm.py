"""Denoising diffusion restoration models (Kawar et al. 2022, arXiv 2201.11793, eq. 7 and 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deft_ct.diffusion.samplers import pairs
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import GridConfig, SamplerConfig
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.methods.guided.spectral import SpectralData
from deft_ct.runtime.search_space import Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class DDRMConfig(GridConfig, SamplerConfig):
    """Settings of DDRM. The defaults are the paper's values.

    Args:
        steps: evaluations of the prior.
        eta: share of fresh noise in the coefficients that the data do not fix at the noise level of the step.
        eta_b: weight of the data in the coefficients that they do fix, 0 to 1.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 20
    eta: float = 0.85
    eta_b: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta_b <= 1:
            raise ValueError(f"eta_b must lie in [0, 1], got {self.eta_b}")


class DDRM(PosteriorSampler):
    """A diffusion in the operator's spectral space that moves each coefficient by how noisy its measurement is.

    Needs a singular value decomposition, so it does not apply to CT; takes the noise as white.
    """

    name = "ddrm"
    config_type = DDRMConfig
    needs = "svd"
    search_space: ClassVar[SearchSpace] = {"eta": Range(0.0, 1.0), "eta_b": Range(0.0, 1.0)}

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        schedule = self.prior.schedule
        times = self.config.times(schedule)

        def sigma(t: float) -> float:
            abar = float(schedule.alpha_bar(t))
            return ((1 - abar) / abar) ** 0.5

        def walk(chunk: Chunk) -> Tensor:
            data = SpectralData(chunk.likelihood)
            # Coefficients are those of x_t / sqrt(abar_t) = x_0 + sigma_t n, the paper's variables.
            coefficients = first_coefficients(data, data.to_spectral(chunk.start), sigma(times[0]))
            for done, (t, s) in enumerate(pairs(times), start=1):
                x_t = data.from_spectral(coefficients) * float(schedule.alpha_bar(t)) ** 0.5
                x0, _ = self.prior.predict(x_t, t)
                fresh = data.to_spectral(chunk.normal(x_t)) if s >= 0 else torch.zeros_like(coefficients)
                coefficients = _ddrm_step(
                    data, coefficients, data.to_spectral(x0), sigma(t), sigma(s), fresh,
                    eta=self.config.eta, eta_b=self.config.eta_b,
                )  # fmt: skip
                chunk.tick(done)
            return data.from_spectral(coefficients)

        return walk


def first_coefficients(data: SpectralData, noise: Tensor, sigma: float) -> Tensor:
    """Coefficients at the first noise level (eq. 7), from standard normal ``noise`` of their shape."""
    fixed = data.level <= sigma
    spread = torch.where(fixed, (sigma**2 - data.level.square()).clamp_min(0), sigma**2).sqrt()
    return torch.where(fixed, data.target, 0.0) + spread * noise


def _ddrm_step(
    data: SpectralData,
    coefficients: Tensor,
    denoised: Tensor,
    sigma: float,
    sigma_next: float,
    noise: Tensor,
    *,
    eta: float,
    eta_b: float,
) -> Tensor:
    """One step in spectral space (eq. 8); all tensors are ``(B, *spectral_shape)``.

    Args:
        data: target and noise level of each coefficient.
        coefficients: at noise level ``sigma``.
        denoised: the prior's estimate of the clean ones.
        sigma: present noise level.
        sigma_next: the next, smaller one.
        noise: standard normal.
        eta: share of fresh noise where the data are noisier than the step.
        eta_b: weight of the data where they are not.
    """
    measured = data.level.isfinite()
    keep = (1 - eta**2) ** 0.5 * sigma_next
    unmeasured = denoised + keep / sigma * (coefficients - denoised) + eta * sigma_next * noise
    # Where a level of zero or infinity leaves no number, another of the three is taken.
    noisier = denoised + keep / data.level * (data.target - denoised) + eta * sigma_next * noise
    spread = (sigma_next**2 - (eta_b * data.level).square()).clamp_min(0).sqrt()
    cleaner = (1 - eta_b) * denoised + eta_b * data.target + spread * noise
    return torch.where(~measured, unmeasured, torch.where(data.level > sigma_next, noisier, cleaner))
