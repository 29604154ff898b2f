"""The samplers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from deft_ct.diffusion.samplers.ddim import Denoiser, ddim
from deft_ct.diffusion.samplers.dpm_solver import dpm_solver
from deft_ct.diffusion.schedule import Schedule

SamplerName = Literal["ddim", "dpm-solver"]


class Sampler(Protocol):
    """Walks a denoiser from noise to an image: :func:`ddim` (first order) or :func:`dpm_solver` (second order)."""

    def __call__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        schedule: Schedule,
        times: Sequence[int],
        *,
        eta: float = 0.0,
        generators: Sequence[torch.Generator] = (),
        callback: Callable[[int], None] | None = None,
    ) -> Tensor:
        """See :func:`ddim`."""


SAMPLERS: dict[SamplerName, Sampler] = {"ddim": ddim, "dpm-solver": dpm_solver}


def check_sampler(sampler: str) -> None:
    """Refuse unknown samplers.

    Raises:
        ValueError: the message lists the known ones.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; known: {', '.join(SAMPLERS)}")
