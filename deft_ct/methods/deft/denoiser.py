"""The prior and its h-transform as one denoiser, given a measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import Denoiser
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft import Condition, HTransform
from deft_ct.methods.deft.conditioning import with_estimate


def conditional_denoiser(
    prior: Prior, htransform: HTransform, likelihood: Likelihood, condition: Condition, *, strength: float = 1.0
) -> Denoiser:
    """The prior with its h-transform, as a denoiser given the measurement.

    Args:
        prior: frozen; evaluated without a graph.
        htransform: the trained correction.
        likelihood: the measurement with its data.
        condition: what the h-transform sees of it.
        strength: multiplies the correction.
    """

    def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            x0, eps = prior.predict(x_t, t)
            times = torch.full((len(x_t),), float(t), device=x_t.device)
            guidance = htransform.guidance_at(likelihood, x0, times)
            seen = with_estimate(condition, likelihood, htransform, x0)
        x0_y, eps_y = htransform(x_t, times, x0, eps, guidance, seen)
        return (x0_y, eps_y) if strength == 1 else (torch.lerp(x0, x0_y, strength), torch.lerp(eps, eps_y, strength))

    return denoise
