"""What a sampling reports while it works: each step of each sample once."""

from __future__ import annotations

import contextlib

import pytest
import torch

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided import sampling
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators import GaussianNoise, Identity
from deft_ct.reconstruction import Request
from deft_ct.runtime.progress import Ticker

pytestmark = pytest.mark.filterwarnings("ignore:data not explained")  # a few steps of a made-up prior

SHAPE, SIGMA = (1, 3, 3), 0.3
DATA = torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Shrinks(torch.nn.Module):
    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.8 * x


def prior() -> Prior:
    return Prior(Shrinks(), Schedule(steps=20, beta_start=0.01, beta_end=0.3), prediction="sample", image_shape=SHAPE)


SAMPLERS = [
    "daps",
    "ddnm",
    "ddrm",
    "dds",
    "diffpir",
    "dps",
    "mcg",
    "pigdm",
    "reconstruction_guidance",
    "reddiff",
    "unconditional",
]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_reported_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(sampling, "_tick", lambda tick, count, step: seen.append((count, step)))
    measurement = Measurement(Identity(SHAPE), GaussianNoise(SIGMA))
    method = load_reconstructor(name, prior=prior(), steps=4, batch_size=3)
    method.reconstruct(DATA, measurement, num_samples=5)
    assert seen == [(3, k) for k in range(1, 5)] + [(2, k) for k in range(1, 5)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_progress_bar_is_as_long_as_the_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    totals: list[int] = []
    done: list[int] = []

    def bar(request: Request, total: int) -> contextlib.nullcontext[Ticker]:
        totals.append(total)
        return contextlib.nullcontext(Ticker(done.append))

    method = load_reconstructor(name, prior=prior(), steps=4, batch_size=3)
    monkeypatch.setattr(method, "_bar", bar)
    method.reconstruct(DATA, Measurement(Identity(SHAPE), GaussianNoise(SIGMA)), num_samples=5)
    assert totals == [4 * 5] == [sum(done)]


def test_the_parts_of_a_chunk_are_named() -> None:
    with pytest.raises(TypeError, match="positional"):
        sampling.Chunk(None, slice(0), DATA, [], print)  # type: ignore[misc]
