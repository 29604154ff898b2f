"""Denoisers of other libraries as priors. They stay in memory: a function cannot be stored in a folder of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.diffusion.prior import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.scales import PriorRange

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``D(x, sigma)``: images ``(B, C, H, W)`` in [-1, 1] plus noise of standard deviation ``sigma`` ``(B,)`` -> images."""


class DenoiserNetwork(nn.Module):
    """A denoiser of noise that is added to the image, as a network of a variance-preserving diffusion.

    With ``s = sqrt(abar)`` and ``sigma = sqrt(1 / abar - 1)``, ``x_t / s`` is an image with noise of standard deviation
    ``sigma`` (Karras et al. 2022, arXiv 2206.00364, eq. 4 and appendix C.1). The output is the estimate of the image.

    Args:
        denoiser: see :data:`Denoiser`; a module becomes a part of this one.
        schedule: of the diffusion.
    """

    def __init__(self, denoiser: Denoiser, schedule: Schedule) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, schedule

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The estimate of the clean images, of the shape of ``x``; times ``t`` are ``(B,)``."""
        abar = self.schedule.alpha_bar(t)
        sigma = (1 / abar - 1).sqrt().to(x.dtype)
        found: Tensor = self.denoiser(x / abar.sqrt().to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)), sigma)
        return found


def prior_from_denoiser(
    denoiser: Denoiser,
    image_shape: tuple[int, int, int],
    *,
    schedule: Schedule | None = None,
    value_range: PriorRange | None = None,
    card: dict[str, Any] | None = None,
) -> Prior:
    """A prior from a denoiser, such as the preconditioned network of EDM.

    Args:
        denoiser: see :data:`Denoiser`.
        image_shape: ``(C, H, W)`` of its training images.
        schedule: times and noise levels of the diffusion; the linear one of DDPM when None.
        value_range: values, in the unit of a scale, of -1 and +1; None for photographs.
        card: free JSON metadata.

    Raises:
        ValueError: the denoiser returns another shape, or values that are not finite.
    """
    schedule = schedule or Schedule()
    prior = Prior(
        DenoiserNetwork(denoiser, schedule), schedule, prediction="sample", value_range=value_range,
        image_shape=image_shape, card=card,
    )  # fmt: skip
    probe = torch.zeros(1, *image_shape)
    with torch.no_grad():
        found = prior.network(probe, torch.zeros(1))
    if found.shape != probe.shape or not bool(found.isfinite().all()):
        raise ValueError(
            f"a denoiser must return finite images of the shape that it is given: got {tuple(found.shape)} for "
            f"{tuple(probe.shape)}"
        )
    return prior


def prior_from_deepinv(denoiser: nn.Module, image_shape: tuple[int, int, int], **options: Any) -> Prior:
    """A prior from a denoiser of deepinv, which takes images in [0, 1]: DRUNet, SCUNet, DiffUNet and others.

    Args:
        denoiser: ``denoiser(x, sigma)`` with ``x`` ``(B, C, H, W)`` and ``sigma`` ``(B,)``.
        image_shape: ``(C, H, W)`` of its images.
        options: as of :func:`prior_from_denoiser`.
    """
    return prior_from_denoiser(_UnitRange(denoiser), image_shape, **options)


class _UnitRange(nn.Module):
    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        found: Tensor = self.denoiser((x + 1) / 2, sigma / 2)
        return 2 * found - 1
