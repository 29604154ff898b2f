"""The mean by the networks: exact for a Gaussian posterior, and improved where the first estimate is off."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deft_ct.diffusion.schedule import Schedule
from deft_ct.methods.deft.conditional_mean import CLEANEST, NOISIEST, conditional_mean, improvement_times
from deft_ct.methods.deft.reconstructor import DEFTConfig

SCHEDULE = Schedule()
MEAN = torch.linspace(-0.5, 0.5, 64).reshape(1, 1, 8, 8)
SPREAD = 0.1


class Posterior:
    """The exact denoiser of a Gaussian posterior, off by ``error`` at the noisiest time; counts its evaluations."""

    def __init__(self, error: float = 0.0) -> None:
        self.error, self.evaluations, self.times = error, 0, [0.0][:0]

    def __call__(self, x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        self.times.append(t)
        signal, noise = SCHEDULE.coefficients(torch.as_tensor(t), x_t)
        gain = SPREAD**2 * signal / (SPREAD**2 * signal**2 + noise**2)
        x0 = MEAN + gain * (x_t - signal * MEAN)
        return x0 + (self.error if t == SCHEDULE.steps - 1 else 0.0), x_t


def draw(k: int) -> Tensor:
    return torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(k))


@pytest.mark.parametrize("rounds", [0, 1, 6])
def test_the_exact_mean_stays(rounds: int) -> None:
    """Without the pairs of noise of both signs the last improvement would leave its noise."""
    posterior = Posterior()
    found = conditional_mean(posterior, SCHEDULE, draw, draws=1, rounds=rounds)
    torch.testing.assert_close(found, MEAN, rtol=0, atol=2e-3)
    assert posterior.evaluations == 1 + 2 * rounds


def test_an_error_shrinks_by_the_gain_of_each_level() -> None:
    posterior = Posterior(error=0.2)
    first = conditional_mean(posterior, SCHEDULE, draw, draws=2, rounds=0)
    torch.testing.assert_close(first - MEAN, torch.full_like(MEAN, 0.2), rtol=0, atol=2e-3)
    assert posterior.evaluations == 2
    found = conditional_mean(Posterior(error=0.2), SCHEDULE, draw, draws=2, rounds=3)
    left = 0.2
    for time in improvement_times(SCHEDULE, 3):
        left *= SPREAD**2 / (SPREAD**2 + float(SCHEDULE.sigmas[time]) ** 2)
    assert left < 0.004
    torch.testing.assert_close(found - MEAN, torch.full_like(MEAN, left), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "vp_sde"])
def test_noise_falls_evenly_in_its_logarithm(kind: str) -> None:
    schedule = Schedule(kind=kind)
    levels = schedule.sigmas[improvement_times(schedule, 6)].log()
    torch.testing.assert_close(levels.diff(), levels.diff().mean().expand(5), rtol=0.2, atol=0)
    assert levels.exp()[[0, -1]].tolist() == pytest.approx([NOISIEST, CLEANEST], rel=0.15)
    assert schedule.sigmas[improvement_times(schedule, 1)].tolist() == pytest.approx([CLEANEST], rel=0.15)


def test_a_negative_number_of_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="rounds must be at least 0, got -1"):
        DEFTConfig(rounds=-1)
