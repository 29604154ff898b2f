"""DDRM and DDNM+ in spectral space, step by step in NumPy with the same random numbers.

The operator weights each pixel, so that every coefficient is a number with a noise level of its own, and the prior says
``x0 = 0.8 x_t``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided.config import WarmStartConfig, check_counts, check_positive
from deft_ct.methods.registry import load_reconstructor, method_class
from deft_ct.operators import Blur, GaussianNoise, NoNoise
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.svd import DiagonalSVD
from deft_ct.reconstructor import UnsupportedError
from deft_ct.runtime.seeds import generator_for

pytestmark = pytest.mark.filterwarnings("ignore:data not explained")  # a few steps of made-up priors

Array = NDArray[np.float64]
SHAPE, SHRINK, SEED = (1, 3, 4), 0.8, 7
WEIGHTS = torch.tensor([[2.0, 1.5, 1.0, 0.7], [0.4, 0.2, 0.1, 0.05], [0.02, 0.0021, 0.0019, 0.0]], dtype=torch.float64)
SEEN = (WEIGHTS > 2e-3).numpy()
"""The cut-off is a thousandth of the largest singular value."""
SCHEDULE = Schedule(steps=20, beta_start=0.01, beta_end=0.3)
ABAR = np.append(np.cumprod(1 - np.linspace(0.01, 0.3, 20)), 1.0)  # the last is that of time -1
DATA = WEIGHTS * torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Weighted(LinearOperator):
    """``y = w x``."""

    def __init__(self) -> None:
        super().__init__(SHAPE, SHAPE)

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        return WEIGHTS.to(x) * x

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        return WEIGHTS.to(y) * y

    def svd(self) -> DiagonalSVD:
        return DiagonalSVD(WEIGHTS[None])


class Shrinks(torch.nn.Module):
    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return SHRINK * x


def drawn(name: str, sigma: float, **options: Any) -> Array:
    prior = Prior(Shrinks(), SCHEDULE, prediction="sample", image_shape=SHAPE)
    measurement = Measurement(Weighted(), GaussianNoise(sigma) if sigma else NoNoise())
    samples = load_reconstructor(name, prior=prior, **options).reconstruct(DATA, measurement, seed=SEED).samples
    assert samples is not None
    return np.asarray(samples[0, 0])


def normals(name: str) -> Callable[[], Array]:
    generator = generator_for(SEED, name, 0, 0)
    return lambda: torch.randn(SHAPE, generator=generator).double().numpy()


def grid(count: int) -> list[tuple[int, int]]:
    times = [19 - k * (20 // count) for k in range(count)]
    return list(zip(times, [*times[1:], -1], strict=True))


def data(sigma: float) -> tuple[Array, Array]:
    """The coefficients that the data imply, and their noise levels; infinite where they say nothing."""
    weights = WEIGHTS.numpy()[None]
    safe = np.where(SEEN, weights, 1.0)
    return np.where(SEEN, DATA.numpy()[0] / safe, 0.0), np.where(SEEN, sigma / safe, np.inf)


def level_of(t: int) -> float:
    return float(((1 - ABAR[t]) / ABAR[t]) ** 0.5)


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.6])
@pytest.mark.parametrize(("eta", "eta_b"), [(0.85, 1.0), (0.3, 0.6), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("count", [5, 20])  # 20 is every time, the first of the schedule too
def test_ddrm_moves_each_coefficient_by_how_noisy_its_datum_is(
    sigma: float, eta: float, eta_b: float, count: int
) -> None:
    """Kawar et al. 2022, equations 7 and 8, in the variables ``x_t / sqrt(abar_t)``."""
    normal = normals("ddrm")
    target, level = data(sigma)
    known = np.where(SEEN, level, 0.0)
    steps = grid(count)
    first = level_of(steps[0][0])
    x = np.where(level <= first, target, 0.0)
    x = x + np.where(level <= first, np.sqrt(np.maximum(first**2 - known**2, 0)), first) * normal()
    for t, s in steps:
        x0 = SHRINK * ABAR[t] ** 0.5 * x
        now, after = level_of(t), level_of(s)
        noise = normal() if s >= 0 else np.zeros(SHAPE)
        fresh, old = eta * after * noise, (1 - eta**2) ** 0.5 * after
        nothing = x0 + old * (x - x0) / now + fresh
        noisier = x0 + old * (target - x0) / np.where(known > 0, known, 1.0) + fresh
        spread = np.sqrt(np.maximum(after**2 - (eta_b * known) ** 2, 0))
        cleaner = (1 - eta_b) * x0 + eta_b * target + spread * noise
        x = np.where(~SEEN, nothing, np.where(level > after, noisier, cleaner))
    np.testing.assert_allclose(drawn("ddrm", sigma, steps=count, eta=eta, eta_b=eta_b), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.6])
@pytest.mark.parametrize("eta", [0.3, 0.85, 1.0])
def test_ddnm_makes_room_for_the_noise_of_the_data(sigma: float, eta: float) -> None:
    """The noise of the data, added up over the steps, and fresh noise keep to the noise of the diffusion together."""
    normal = normals("ddnm")
    target, level = data(sigma)
    known, carried, x = np.where(SEEN, level, 0.0), np.zeros(SHAPE), normal()
    for t, s in grid(5):
        x0 = SHRINK * x
        fresh = eta * ((1 - ABAR[t] / ABAR[s]) * (1 - ABAR[s]) / (1 - ABAR[t])) ** 0.5
        along = ((1 - ABAR[s] - fresh**2) / (1 - ABAR[t])) ** 0.5
        weight = ABAR[s] ** 0.5 - along * ABAR[t] ** 0.5
        amplified, before = weight * known, along * carried
        room = np.sqrt(before**2 + fresh**2) - before
        share = np.where(amplified > room, room / np.maximum(amplified, 1e-30), 1.0)
        carried = before + share * amplified
        x0 = x0 + SEEN * share * (target - x0)
        x = weight * x0 + along * x
        if fresh > 0:
            spread = np.sqrt(np.maximum(fresh**2 - (carried**2 - before**2), 0))
            x = x + spread * normal()
    np.testing.assert_allclose(drawn("ddnm", sigma, steps=5, eta=eta), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("daps", {"langevin_step": 2.0}, r"langevin_step must lie in \(0, 2\), got 2.0"),
        ("daps", {"langevin_step": 0.0}, "langevin_step must be above 0, got 0.0"),
        ("daps", {"radius": 0.0}, "radius must be above 0"),
        ("daps", {"ode_steps": 0}, "ode_steps and langevin_steps must be at least 1, got 0 and 100"),
        ("daps", {"langevin_steps": 0}, "must be at least 1, got 5 and 0"),
        ("ddnm", {"eta": 0.0}, r"eta must lie in \(0, 1\], got 0"),
        ("ddnm", {"eta": 1.01}, r"eta must lie in \[0, 1\]"),
        ("ddnm", {"coupling": -1.0}, "coupling must be a finite number >= 0"),
        ("dds", {"gamma": 0.0}, "gamma must be above 0"),
        ("dds", {"cg_iterations": 0}, "cg_iterations must be at least 1"),
        ("diffpir", {"strength": 0.0}, "strength must be above 0"),
        ("diffpir", {"zeta": 1.01}, r"zeta must lie in \[0, 1\]"),
        ("diffpir", {"zeta": -0.01}, r"zeta must lie in \[0, 1\]"),
        ("dps", {"zeta": 0.0}, "zeta must be above 0"),
        ("mcg", {"cg_iterations": 0}, "cg_iterations must be at least 1"),
        ("pigdm", {"data_std": 0.0}, "data_std must be above 0"),
        ("reddiff", {"strength": 0.0}, "strength must be above 0"),
        ("reddiff", {"learning_rate": 0.0}, "learning_rate must be above 0"),
        ("unconditional", {"steps": 0}, "steps and batch_size must be at least 1, got 0 and 8"),
        ("unconditional", {"batch_size": 0}, "must be at least 1, got 100 and 0"),
        ("unconditional", {"eta": -0.01}, r"eta must lie in \[0, 1\], got -0.01"),
    ],
)
def test_settings_out_of_range(name: str, value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_class(name).config_type(**value)


def test_settings_at_the_ends_of_their_ranges() -> None:
    for name, value in (
        ("daps", {"langevin_step": 1.999}), ("ddnm", {"eta": 1.0, "coupling": 0.0}), ("diffpir", {"zeta": 0.0}),
        ("diffpir", {"zeta": 1.0}), ("ddrm", {"eta": 0.0, "eta_b": 1.0}), ("unconditional", {"steps": 1}),
        ("dds", {"cg_iterations": 1, "start": 1.0}), ("dps", {"start": 1e-3, "eta": 0.0}),
    ):  # fmt: skip
        made = method_class(name).config_type(**value)
        assert {key: getattr(made, key) for key in value} == value
    check_counts(a=1, b=2)
    check_positive(a=1e-30, b=float("inf"))


@pytest.mark.parametrize("name", ["dps", "daps", "mcg", "dds"])
def test_a_late_start_that_is_not_possible_is_told_before_any_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a quick reconstruction: of an operator that is no scan, TV is none."""
    prior = Prior(Shrinks(), SCHEDULE, prediction="sample", image_shape=SHAPE)
    method = load_reconstructor(name, prior=prior, steps=2, start=0.5)
    monkeypatch.setattr(method, "_estimate", lambda request: pytest.fail("it has begun"))
    with pytest.raises(UnsupportedError, match="start_from='tv' needs a CT scan, not Weighted"):
        method.reconstruct(DATA, Measurement(Weighted(), GaussianNoise(0.1)))


def test_ddrm_refuses_a_blur_that_has_no_cheap_decomposition() -> None:
    prior = Prior(Shrinks(), SCHEDULE, prediction="sample", image_shape=SHAPE)
    blur = Measurement(Blur((1, 3, 4), torch.full((3, 3), 1 / 9), boundary="reflect"), GaussianNoise(0.1))
    with pytest.raises(UnsupportedError, match="ddrm needs the singular value decomposition of the operator: Blur"):
        load_reconstructor("ddrm", prior=prior, steps=2).reconstruct(torch.zeros(1, *SHAPE), blur)


def test_more_steps_than_times_are_refused_from_pure_noise_alone() -> None:
    """A walk from a late start takes as many as there are."""
    assert WarmStartConfig(start=0.999, steps=21).times(SCHEDULE) == list(range(19, -1, -1))
    with pytest.raises(ValueError, match="20"):
        WarmStartConfig(start=1.0, steps=21).times(SCHEDULE)
