"""Samplers: time-stepping of any denoiser."""

from deft_ct.samplers.ddim import Denoiser, ddim, ddim_coefficients, pairs
from deft_ct.samplers.dpm_solver import dpm_solver

__all__ = ["Denoiser", "ddim", "ddim_coefficients", "dpm_solver", "pairs"]
