"""Unconditional diffusion priors: the model, its format on disk, its training."""

from deft_ct.priors.prior import Prior
from deft_ct.priors.storage import load_prior, save_prior, shipped_priors

__all__ = ["Prior", "load_prior", "save_prior", "shipped_priors"]
