"""A sampling method without a network: FBP plus noise that depends on the seed and on the name of the slice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from deft_ct.methods.registry import Networks
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.seeds import generator_for, normal_like


@dataclass(frozen=True)
class NoConfig:
    """Nothing to set."""


class SeededSampler(Reconstructor):
    """It goes by the name of DEFT."""

    name = "deft"
    config_type = NoConfig
    shift = 0.0
    """Added to everything, in 1/mm: another method of the same name."""

    def _estimate(self, request: Request) -> Estimate:
        fbp = request.measurement.operator.pseudo_inverse(request.y) + SeededSampler.shift
        keys = request.image_ids
        noise = [
            normal_like(fbp, [generator_for(request.seed, key, n) for key in keys]) for n in range(request.num_samples)
        ]
        return Estimate(samples=torch.stack([fbp + 1e-3 * one for one in noise], dim=1))


@contextmanager
def seeded_deft(shift: float = 0.0) -> Iterator[None]:
    """Every ``deft`` that is built is this one; other methods are themselves."""
    real = Networks.build

    def build(networks: Networks, name: str, *more: Any, **options: Any) -> Reconstructor:
        return SeededSampler(NoConfig()) if name == "deft" else real(networks, name, *more, **options)

    with mock.patch.object(Networks, "build", build), mock.patch.object(SeededSampler, "shift", shift):
        yield
