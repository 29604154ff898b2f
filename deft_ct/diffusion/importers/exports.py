"""Our priors for other libraries: a pipeline of diffusers, a denoiser of deepinv."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.diffusion.diffusers_files import diffusers_config, scheduler_config
from deft_ct.diffusion.prior import Prior
from deft_ct.networks import UNet
from deft_ct.networks.diffusers_unet import DiffusersUNet
from deft_ct.runtime.extras import optional_library


def as_diffusers(prior: Prior) -> Any:
    """The prior as a ``DDPMPipeline`` of diffusers; its images are in [0, 1] for values from -1 to +1.

    A network with a space-to-depth stem, which diffusers does not know, is wrapped: the pipeline then runs, and its
    ``unet`` cannot be stored by diffusers alone.

    Args:
        prior: of images, with a discrete schedule.

    Raises:
        MissingExtraError: diffusers is not installed.
        ValueError: the prior is not of images, its schedule is continuous, or its network is of another library.
    """
    diffusers = optional_library("diffusers", "diffusers")
    if not prior.is_image or prior.schedule.continuous:
        raise ValueError("a DDPMPipeline takes priors of images with a discrete schedule")
    scheduler = diffusers.DDPMScheduler.from_config(scheduler_config(prior))
    return diffusers.DDPMPipeline(unet=_diffusers_unet(prior, diffusers), scheduler=scheduler)


def _diffusers_unet(prior: Prior, diffusers: Any) -> Any:
    network, side = prior.network, prior.image_shape[-1]
    if isinstance(network, DiffusersUNet):
        return network.model
    if not isinstance(network, UNet):
        raise ValueError(f"diffusers has no network like {type(network).__name__}")
    patch = network.config.patch
    inner = diffusers.UNet2DModel.from_config(diffusers_config(network.config, side)).eval()
    inner.load_state_dict(network.state_dict())
    if patch == 1:
        return inner

    class StemmedUNet(diffusers.UNet2DModel):  # type: ignore[misc]
        """A ``UNet2DModel`` behind a space-to-depth stem."""

        def forward(self, sample: Tensor, *more: Any, return_dict: bool = True, **options: Any) -> Any:
            packed = nn.functional.pixel_unshuffle(sample, patch)
            found = super().forward(packed, *more, return_dict=False, **options)[0]
            image = nn.functional.pixel_shuffle(found, patch)
            return diffusers.models.unets.unet_2d.UNet2DOutput(sample=image) if return_dict else (image,)

    outer = StemmedUNet.from_config(inner.config).eval()
    outer.load_state_dict(inner.state_dict())
    # What a pipeline draws noise for: the image in front of the stem.
    outer.register_to_config(sample_size=side, in_channels=prior.channels, out_channels=prior.channels)
    return outer


def as_deepinv(prior: Prior) -> Any:
    """The prior as a ``Denoiser`` of deepinv: ``denoiser(x, sigma)`` with images in [0, 1] for values from -1 to +1.

    The noise level of each image is mapped to the time of the prior with this level. Levels beyond those of the prior
    get its noisiest time.

    Args:
        prior: of images.

    Raises:
        MissingExtraError: deepinv is not installed.
        ValueError: the prior is not of images.
    """
    if not prior.is_image:
        raise ValueError("deepinv takes priors of images")
    base = optional_library("deepinv.models", "deepinv").Denoiser

    class PriorDenoiser(base):  # type: ignore[misc, valid-type]
        """A prior of deft-ct as a denoiser of deepinv."""

        def __init__(self) -> None:
            super().__init__()
            self.prior = prior

        def forward(self, x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
            """Denoise images ``(B, C, H, W)`` in [0, 1] with noise of standard deviation ``sigma``."""
            level = 2 * torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1).expand(len(x))
            t = noise_times(prior, level)
            signal = prior.schedule.coefficients(t, x)[0]
            return (self.prior.denoise(signal * (2 * x - 1), t) + 1) / 2

    return PriorDenoiser()


def noise_times(prior: Prior, sigma: Tensor) -> Tensor:
    """Real times at which the noise relative to the signal, ``sqrt(1 / abar - 1)``, is ``sigma`` ``(B,)``.

    They are interpolated in the logarithm, as the schedule does, and end at its cleanest and noisiest times.
    """
    levels = prior.schedule.sigmas.log().to(sigma.device)
    wanted = sigma.double().clamp_min(1e-12).log().clamp(levels[0], levels[-1])
    above = torch.searchsorted(levels, wanted.contiguous()).clamp(1, len(levels) - 1)
    share = (wanted - levels[above - 1]) / (levels[above] - levels[above - 1])
    return above - 1 + share
