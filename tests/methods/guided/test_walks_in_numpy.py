"""Every zero-shot sampler step by step against a second program in NumPy, with the same random numbers.

The operator is ``A x = 2 x``, and the prior says ``x0 = 0.8 x_t``. So each step of a paper is a formula for one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gaussian import MatrixOperator
from numpy.typing import NDArray

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import dpm_solver
from deft_ct.diffusion.schedule import Schedule, time_grid
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import AffineMap
from deft_ct.methods.guided.config import WarmStartConfig
from deft_ct.methods.guided.spectral import SpectralData
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators import GaussianNoise, Identity, NoNoise, PoissonNoise, SuperResolution
from deft_ct.runtime.seeds import generator_for

pytestmark = pytest.mark.filterwarnings("ignore:data not explained")  # a few steps of made-up priors

Array = NDArray[np.float64]
SHAPE, SHRINK, GAIN, SIGMA, SEED = (1, 3, 3), 0.8, 2.0, 0.3, 7
SCHEDULE = Schedule(steps=20, beta_start=0.01, beta_end=0.3)
ABAR = np.append(np.cumprod(1 - np.linspace(0.01, 0.3, 20)), 1.0)  # the last is that of time -1
DATA = torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = DATA.numpy()[0]


class Shrinks(torch.nn.Module):
    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return SHRINK * x


def prior() -> Prior:
    return Prior(Shrinks(), SCHEDULE, prediction="sample", image_shape=SHAPE)


def drawn(name: str, noise: Any = None, **options: Any) -> Array:
    """The sample of a method."""
    measurement = Measurement(GAIN * Identity(SHAPE), noise or GaussianNoise(SIGMA))
    samples = load_reconstructor(name, prior=prior(), **options).reconstruct(DATA, measurement, seed=SEED).samples
    assert samples is not None
    return np.asarray(samples[0, 0])


def normals(name: str) -> Callable[[], Array]:
    """The random numbers of that sample, one image a call."""
    generator = generator_for(SEED, name, 0, 0)
    return lambda: torch.randn(SHAPE, generator=generator).double().numpy()


def grid(count: int, top: int = 19) -> list[tuple[int, int]]:
    """``(t, s)`` of a uniform walk, in whole steps of the schedule; -1 is clean data."""
    step = (top + 1) // count
    times = [top - k * step for k in range(count)]
    return list(zip(times, [*times[1:], -1], strict=True))


def noise_in(x: Array, x0: Array, t: int) -> Array:
    return np.asarray((x - ABAR[t] ** 0.5 * x0) / (1 - ABAR[t]) ** 0.5)


def ancestral(t: int, s: int, eta: float) -> tuple[float, float]:
    """Weights of the old and of the fresh noise in a DDIM step."""
    fresh = eta * ((1 - ABAR[t] / ABAR[s]) * (1 - ABAR[s]) / (1 - ABAR[t])) ** 0.5
    return (1 - ABAR[s] - fresh**2) ** 0.5, fresh


def same(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def dps_step(x: Array, t: int, s: int, zeta: float, norm: str, normal: Callable[[], Array], eta: float = 1.0) -> Array:
    x0 = SHRINK * x
    residual = Y - GAIN * x0
    scale = GAIN * np.linalg.norm(residual) if norm == "l2" else GAIN**2
    old, fresh = ancestral(t, s, eta)
    x = ABAR[s] ** 0.5 * x0 + old * noise_in(x, x0, t) + zeta * SHRINK * GAIN * residual / scale
    return x + fresh * normal() if fresh > 0 else x


@pytest.mark.parametrize("norm", ["l2", "l2sq"])
def test_dps_scales_its_step_up_for_fewer_steps(norm: str) -> None:
    normal = normals("dps")
    x = normal()
    for t, s in grid(5):
        x = dps_step(x, t, s, 0.1 * 20 / 5, norm, normal)
    same(drawn("dps", steps=5, zeta=0.1, norm=norm), x)


def test_dps_from_a_quick_reconstruction() -> None:
    normal = normals("dps")
    x = ABAR[9] ** 0.5 * Y / GAIN + (1 - ABAR[9]) ** 0.5 * normal()
    for t, s in grid(5, top=9):
        x = dps_step(x, t, s, 0.1 * 10 / 5, "l2", normal)
    same(drawn("dps", steps=5, zeta=0.1, start=0.5, start_from="fbp"), x)


class Mixes(torch.nn.Module):
    """Each pixel with the one opposite: what is projected away in one shows up in the other."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.6 * x + 0.2 * x.flip(-1, -2)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_mcg_projects_on_the_noised_data(eta: float) -> None:
    """The data are ``y = 2 x`` of the first four of nine pixels."""
    y = DATA.flatten()[:4]
    options = {"steps": 5, "zeta": 0.1, "eta": eta}
    measurement = Measurement(MatrixOperator(GAIN * torch.eye(9).double()[:4], 3), GaussianNoise(SIGMA))
    method = load_reconstructor(
        "mcg", prior=Prior(Mixes(), SCHEDULE, prediction="sample", image_shape=SHAPE), **options
    )
    samples = method.reconstruct(y.reshape(1, 1, 1, 4), measurement, seed=SEED).samples
    assert samples is not None

    def mix(v: Array) -> Array:
        return np.asarray(0.6 * v + 0.2 * v[::-1])

    normal = normals("mcg")
    x = normal().ravel()
    for t, s in grid(5):
        x0 = mix(x)
        residual = y.numpy() - GAIN * x0[:4]
        step = mix(np.append(GAIN * residual, np.zeros(5))) / (GAIN * np.linalg.norm(residual))
        old, fresh = ancestral(t, s, eta)
        x = ABAR[s] ** 0.5 * x0 + old * noise_in(x, x0, t) + 0.1 * 20 / 5 * step
        x = x + fresh * normal().ravel() if fresh > 0 else x
        # x + A^+ (sqrt(a) y + sqrt(1 - a) A n - A x), with the pseudo-inverse 1 / A and a damping of 1e-6
        noised = ABAR[s] ** 0.5 * y.numpy() / GAIN
        if s >= 0:
            noised = noised + (1 - ABAR[s]) ** 0.5 * normal().ravel()[:4]
        x[:4] += (noised - x[:4]) / (1 + 1e-6)
    same(np.asarray(samples[0, 0]).ravel(), x)


@pytest.mark.parametrize("zeta", [0.0, 0.3, 1.0])
def test_diffpir_mixes_old_and_fresh_noise(zeta: float) -> None:
    normal = normals("diffpir")
    x = normal()
    for t, s in grid(5):
        rho = 3.0 * SIGMA**2 * ABAR[t] / (1 - ABAR[t])
        x0 = (GAIN * Y + rho * SHRINK * x) / (GAIN**2 + rho)
        x = ABAR[s] ** 0.5 * x0 + (1 - ABAR[s]) ** 0.5 * ((1 - zeta) ** 0.5 * noise_in(x, x0, t) + zeta**0.5 * normal())
    same(drawn("diffpir", steps=5, strength=3.0, zeta=zeta), x0)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddnm_without_a_decomposition_damps_by_the_noise(eta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deft_ct.methods.guided.ddnm.has_svd", lambda likelihood: False)
    normal = normals("ddnm")
    x = normal()
    for t, s in grid(5):
        x0 = SHRINK * x
        old, fresh = ancestral(t, s, eta)
        along = old / (1 - ABAR[t]) ** 0.5
        weight = ABAR[s] ** 0.5 - along * ABAR[t] ** 0.5
        if fresh > 0:
            damping = (SIGMA * weight / fresh) ** 2
            x0 = (GAIN * Y + damping * x0) / (GAIN**2 + damping)
        x = weight * x0 + along * x + (fresh * normal() if fresh > 0 else 0)
    same(drawn("ddnm", steps=5, eta=eta), x)


@pytest.mark.parametrize("gamma", [2.0, math.inf])
def test_dds_solves_the_proximal_step(gamma: float) -> None:
    normal = normals("dds")
    x = normal()
    for t, s in grid(5):
        damping = GAIN**2 / gamma
        x0 = (GAIN * Y + damping * SHRINK * x) / (GAIN**2 + damping)
        old, fresh = ancestral(t, s, 0.85)
        x = ABAR[s] ** 0.5 * x0 + old * noise_in(x, SHRINK * x, t) + (fresh * normal() if fresh > 0 else 0)
    same(drawn("dds", steps=5, gamma=gamma), x0)


def test_pigdm_adds_the_score_of_the_data() -> None:
    normal = normals("pigdm")
    x = normal()
    for t, s in grid(5):
        a = ABAR[t]
        spread = 0.5**2 * (1 - a) / (a * 0.5**2 + 1 - a)
        score = SHRINK * GAIN * (Y - GAIN * SHRINK * x) / (GAIN**2 * spread + SIGMA**2)
        x0 = SHRINK * x + (1 - a) / a**0.5 * score
        eps = noise_in(x, SHRINK * x, t) - (1 - a) ** 0.5 * score
        old, fresh = ancestral(t, s, 1.0)
        x = ABAR[s] ** 0.5 * x0 + old * eps + (fresh * normal() if fresh > 0 else 0)
    same(drawn("pigdm", steps=5, data_std=0.5), x0)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("inner", ["cg", "langevin"])
def test_daps_denoises_fully_draws_and_noises_anew(inner: str, clean: bool) -> None:
    sigma = 0.01 * GAIN if clean else SIGMA  # the paper's level for noise-free data, of an operator of norm 1
    normal = normals("daps")
    x = normal()
    for t, s in grid(20):
        # The ODE from t: three evaluations, or as many as there are times.
        levels = time_grid(SCHEDULE, min(3, t + 1), last=t)
        for a, b in zip(levels, [*levels[1:], -1], strict=True):
            x0 = SHRINK * x
            x = ABAR[b] ** 0.5 * x0 + (1 - ABAR[b]) ** 0.5 * noise_in(x, x0, a)
        centre, radius = x0, 0.7 * ((1 - ABAR[t]) / ABAR[t]) ** 0.5
        if inner == "cg":
            precision = GAIN**2 / sigma**2 + 1 / radius**2
            noise = GAIN / sigma * normal() + 1 / radius * normal()
            x0 = centre + (GAIN * (Y - GAIN * centre) / sigma**2 + noise) / precision
        else:
            size = 0.5 / (GAIN**2 / sigma**2 + 1 / radius**2)
            for _ in range(4):
                gradient = GAIN * (Y - GAIN * x0) / sigma**2 + (centre - x0) / radius**2
                x0 = x0 + size * gradient + (2 * size) ** 0.5 * normal()
        x = ABAR[s] ** 0.5 * x0 + (1 - ABAR[s]) ** 0.5 * normal() if s >= 0 else x0
    options = {"steps": 20, "ode_steps": 3, "inner": inner, "langevin_steps": 4, "radius": 0.7}
    same(drawn("daps", NoNoise() if clean else None, **options), x0)


@pytest.mark.parametrize("norm", ["l2", "l2sq"])
def test_dps_with_statistical_weights(norm: str) -> None:
    """The misfit of each datum counts by its weight, of mean one."""
    normal, weights = normals("dps"), np.exp(-Y) / np.exp(-Y).mean()
    x = normal()
    for t, s in grid(5):
        x0 = SHRINK * x
        residual = Y - GAIN * x0
        scale = GAIN * (weights * residual**2).sum() ** 0.5 if norm == "l2" else GAIN**2
        old, fresh = ancestral(t, s, 0.6)
        x = ABAR[s] ** 0.5 * x0 + old * noise_in(x, x0, t) + 0.4 * SHRINK * GAIN * weights * residual / scale
        x = x + fresh * normal() if fresh > 0 else x
    same(drawn("dps", PoissonNoise(1e3), steps=5, zeta=0.1, norm=norm, eta=0.6, weighted=True), x)


@pytest.mark.parametrize("inner", ["cg", "langevin"])
def test_daps_with_statistical_weights(inner: str) -> None:
    """Of one evaluation at each level; a Langevin step is as long as the largest weight lets it be."""
    normal, inverse = normals("daps"), 1e3 * np.exp(-Y)
    x = normal()
    for t, s in grid(5):
        centre = x0 = SHRINK * x
        radius = ((1 - ABAR[t]) / ABAR[t]) ** 0.5
        if inner == "cg":
            noise = GAIN * inverse**0.5 * normal() + 1 / radius * normal()
            x0 = centre + (GAIN * inverse * (Y - GAIN * centre) + noise) / (GAIN**2 * inverse + 1 / radius**2)
        else:
            size = 0.3 / (GAIN**2 * inverse.max() + 1 / radius**2)
            for _ in range(2):
                gradient = GAIN * inverse * (Y - GAIN * x0) + (centre - x0) / radius**2
                x0 = x0 + size * gradient + (2 * size) ** 0.5 * normal()
        x = ABAR[s] ** 0.5 * x0 + (1 - ABAR[s]) ** 0.5 * normal() if s >= 0 else x0
    options = {"steps": 5, "ode_steps": 1, "inner": inner, "langevin_steps": 2, "langevin_step": 0.3}
    found = drawn("daps", PoissonNoise(1e3), **options)
    np.testing.assert_allclose(found, x0, rtol=2e-3, atol=2e-4)  # exact draws stop at a residual of 1e-4


@pytest.mark.parametrize(
    ("start", "steps", "times"),
    [(1.0, 5, [19, 15, 11, 7, 3]), (0.5, 5, [9, 7, 5, 3, 1]), (0.1, 5, [1, 0]), (0.01, 5, [0]), (0.5, 1, [9])],
)
def test_times_of_a_walk(start: float, steps: int, times: list[int]) -> None:
    """A short one takes one step at each time at most."""
    assert WarmStartConfig(start=start, steps=steps).times(SCHEDULE) == times


def damped_inverse() -> Array:
    """Noisy data inverted with values of spread 1 whose neighbours differ by 0.15."""
    difference = np.eye(3)[1:] - np.eye(3)[:-1]
    steps = np.vstack([np.kron(difference, np.eye(3)), np.kron(np.eye(3), difference)])
    precision = (GAIN**2 / SIGMA**2 + 1) * np.eye(9) + steps.T @ steps / 0.15**2
    found: Array = np.linalg.solve(precision, GAIN / SIGMA**2 * Y.ravel()).reshape(SHAPE)
    return found


@pytest.mark.parametrize("case", ["noisy", "clean", "counts"])
def test_reddiff_is_adam_from_an_inverse_or_from_noise(case: str) -> None:
    normal, counts = normals("reddiff"), case == "counts"
    start = normal()
    # The mean of counts is not linear in the image.
    x = {"counts": start, "clean": Y / GAIN, "noisy": damped_inverse()}[case]
    m = v = np.zeros(SHAPE)
    for k, (t, _) in enumerate(grid(5), start=1):
        a, noise = ABAR[t], normal()
        noisy = a**0.5 * x + (1 - a) ** 0.5 * noise
        pull = 0.25 * ((1 - a) / a) ** 0.5 * (noise_in(noisy, SHRINK * noisy, t) - noise)
        if counts:
            mean = np.exp(-GAIN * x)
            weights = 1 / Y
            descent = GAIN * -mean * (weights / weights.mean()) * (Y - mean)
        else:
            descent = GAIN * (Y - GAIN * x)
        gradient = pull - descent / GAIN**2
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        x = x - 0.05 * (m / (1 - 0.9**k)) / ((v / (1 - 0.99**k)) ** 0.5 + 1e-8)
    noise_model = {"counts": PoissonNoise(1e3, post_log=False), "clean": NoNoise(), "noisy": None}[case]
    same(drawn("reddiff", noise_model, steps=5, learning_rate=0.05), x)


def solver(x: Array, normal: Callable[[], Array], eta: float) -> Array:
    """DPM-Solver++(2M) in the form of Lu et al. 2022, eq. 17, with ``l = ln(alpha / sigma)``."""
    before: tuple[Array, float] | None = None
    for t, s in grid(5):
        x0 = SHRINK * x
        if s < 0:
            break
        width = 0.5 * np.log(ABAR[s] / (1 - ABAR[s]) * (1 - ABAR[t]) / ABAR[t])
        ahead = x0
        if before is not None:
            ratio = before[1] / width
            ahead = (1 + 1 / (2 * ratio)) * x0 - 1 / (2 * ratio) * before[0]
        sigma = (1 - ABAR[s]) ** 0.5
        x = sigma / (1 - ABAR[t]) ** 0.5 * np.exp(-eta * width) * x
        x = x + ABAR[s] ** 0.5 * (1 - np.exp(-(1 + eta) * width)) * ahead
        if eta > 0:
            x = x + sigma * (1 - np.exp(-2 * eta * width)) ** 0.5 * normal()
        before = x0, width
    return x0


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpm_solver_between_the_ode_and_the_sde(eta: float) -> None:
    normal = normals("any")
    x = normal()
    found = dpm_solver(
        prior().predict, torch.from_numpy(x)[None], SCHEDULE, [t for t, _ in grid(5)], eta=eta,
        generators=[_second(generator_for(SEED, "any", 0, 0))],
    )  # fmt: skip
    same(found[0].numpy(), solver(x, normal, eta))


def _second(generator: torch.Generator) -> torch.Generator:
    torch.randn(SHAPE, generator=generator)
    return generator


def test_the_prior_alone_is_sampled_by_either_sampler() -> None:
    normal = normals("unconditional")
    x = first = normal()
    for t, s in grid(5):
        old, fresh = ancestral(t, s, 1.0)
        x = ABAR[s] ** 0.5 * SHRINK * x + old * noise_in(x, SHRINK * x, t) + (fresh * normal() if fresh > 0 else 0)
    same(drawn("unconditional", steps=5), x)
    same(drawn("unconditional", steps=5, sampler="dpm-solver"), solver(first, normal, 0.0))


@pytest.mark.parametrize("scale", [1.0, 0.5, -4.0])
def test_spectral_data_are_in_the_range_of_the_prior(scale: float) -> None:
    """Pooling has the singular value 1/2, so a coefficient has the deviation ``2 sigma / |scale|``."""
    operator, to_physical = SuperResolution((1, 4, 4), 2), AffineMap(scale, 0.3)
    x0 = torch.rand((2, 1, 4, 4), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = operator(to_physical(x0))
    noisy = SpectralData(Likelihood(Measurement(operator, GaussianNoise(0.1)), y, to_physical))
    seen = noisy.level.isfinite()
    assert int(seen.sum()) == 2 * 4
    np.testing.assert_allclose(noisy.level[seen], 2 * 0.1 / abs(scale), rtol=1e-6)
    np.testing.assert_allclose(noisy.target[seen], noisy.to_spectral(x0)[seen], rtol=1e-6, atol=1e-9)
    pooled = x0.reshape(2, 1, 2, 2, 2, 2).mean((3, 5)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    np.testing.assert_allclose(noisy.from_spectral(noisy.target), pooled, rtol=1e-6, atol=1e-9)
