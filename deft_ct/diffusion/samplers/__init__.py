"""Samplers: time-stepping of any denoiser."""

from deft_ct.diffusion.samplers.by_name import SAMPLERS, SamplerName, check_sampler
from deft_ct.diffusion.samplers.ddim import Denoiser, ddim, ddim_coefficients, pairs
from deft_ct.diffusion.samplers.dpm_solver import dpm_solver

__all__ = [
    "SAMPLERS", "Denoiser", "SamplerName", "check_sampler", "ddim", "ddim_coefficients", "dpm_solver",
    "pairs",
]  # fmt: skip
