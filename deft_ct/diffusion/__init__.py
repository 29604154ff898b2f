"""Unconditional diffusion priors: the model, its format on disk, its training."""

from deft_ct.diffusion.prior import Prior
from deft_ct.diffusion.prior_folder import load_prior, save_prior, shipped_priors

__all__ = ["Prior", "load_prior", "save_prior", "shipped_priors"]
