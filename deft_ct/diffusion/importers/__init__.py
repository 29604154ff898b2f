"""Priors that other programs have trained: OpenAI's ADM, diffusers, EDM denoisers, deepinv; and ours for them."""

from deft_ct.diffusion.importers.denoisers import prior_from_deepinv, prior_from_denoiser
from deft_ct.diffusion.importers.exports import as_deepinv, as_diffusers
from deft_ct.diffusion.importers.files import ImportOptions, import_prior

__all__ = ["ImportOptions", "as_deepinv", "as_diffusers", "import_prior", "prior_from_deepinv", "prior_from_denoiser"]
