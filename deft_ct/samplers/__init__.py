"""Samplers: time-stepping of any denoiser."""

from deft_ct.samplers.ddim import Denoiser, ddim

__all__ = ["Denoiser", "ddim"]
