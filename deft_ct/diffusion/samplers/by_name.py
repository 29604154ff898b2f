"""The samplers by name."""

from __future__ import annotations

from typing import Literal

from deft_ct.diffusion.samplers.ddim import ddim
from deft_ct.diffusion.samplers.dpm_solver import dpm_solver

SamplerName = Literal["ddim", "dpm-solver"]

SAMPLERS = {"ddim": ddim, "dpm-solver": dpm_solver}
"""Walks from noise to an image that are called alike: :func:`ddim` (first order), :func:`dpm_solver` (second)."""


def check_sampler(sampler: str) -> None:
    """Refuse unknown samplers.

    Raises:
        ValueError: the message lists the known ones.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; known: {', '.join(SAMPLERS)}")
