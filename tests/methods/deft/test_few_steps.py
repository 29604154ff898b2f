"""DEFT in few steps with the exact h-transform: samplers, grids, starts, the consistency step, the direct mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exact_head import PIXELS, ROWS, SIDE, SIGMA, exact_deft, known_images, world
from tiny import tiny_htransform, tiny_prior, tiny_scan, tiny_slices
from torch import Tensor

from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.operators import GaussianNoise, PhaseRetrieval

DRAWS = 1000


def moments(**options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and covariance of samples of one measurement, and the exact ones."""
    gaussian, matrix, measurement = world()
    _, y = known_images(1)
    exact = gaussian.posterior(matrix, SIGMA, y.flatten())
    method = exact_deft(DEFTConfig(batch_size=DRAWS, **options))
    samples = method.reconstruct(y, measurement, num_samples=DRAWS, seed=3).samples
    assert samples is not None
    draws = samples[0].flatten(1)
    return draws.mean(0), torch.cov(draws.T), exact.mean, exact.cov


def errors(**options: Any) -> tuple[float, float]:
    """Error of the mean in spreads, and the total variance over the exact one. Monte Carlo: 0.03 each."""
    mean, cov, exact_mean, exact_cov = moments(**options)
    return float((mean - exact_mean).norm() / exact_cov.trace().sqrt()), float(cov.trace() / exact_cov.trace())


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("grid", ["quadratic", "log_snr", "karras"])
def test_twenty_steps_of_second_order_give_the_posterior(grid: str, eta: float) -> None:
    mean, variance = errors(steps=20, sampler="dpm-solver", grid=grid, eta=eta)
    assert mean < 0.08
    assert variance == pytest.approx(1.0, abs=0.25 if eta else 0.15)  # test_convergence.py is exact


def test_twenty_uniform_steps_of_first_order_lose_spread() -> None:
    mean, variance = errors(steps=20, sampler="ddim", grid="uniform")
    assert mean < 0.08
    assert 0.5 < variance < 0.8


@pytest.mark.parametrize(("eta", "start"), [(0.0, 0.3), (1.0, 0.3), (0.0, 0.12), (1.0, 0.12)])
def test_the_bias_of_a_warm_start_is_what_the_docstring_says(eta: float, start: float) -> None:
    """In each eigendirection of the posterior covariance, by itself."""
    _, _, measurement = world()
    _, y = known_images(1)
    options = {"steps": 1000, "sampler": "ddim", "eta": eta, "start": start, "start_from": "fbp"}
    found, cov, mean, exact = moments(**options)
    values, vectors = torch.linalg.eigh(exact)
    schedule = exact_deft().prior.schedule
    first = DEFTConfig(**options).times(schedule)[0]
    g = values / (values + schedule.sigmas[first] ** 2)
    off = (measurement.operator.pseudo_inverse(y).flatten() - mean) @ vectors
    bias = (g if eta else g.sqrt()) * off
    loss = g.square() if eta else g
    spread = values.sqrt()
    assert ((found - mean) @ vectors - bias).abs().div(spread).max() < 4 / DRAWS**0.5
    variance = (vectors.T @ cov @ vectors).diagonal() / values
    torch.testing.assert_close(variance, 1 - loss, rtol=0, atol=4 * (2 / DRAWS) ** 0.5)
    if (eta, start) == (0.0, 0.12):  # the formula says something here
        assert (bias / spread).abs().max() > 0.3 and loss.max() > 0.3


def test_the_consistency_step_is_the_proximal_step() -> None:
    _, matrix, measurement = world()
    _, y = known_images(3)
    options = {"steps": 5, "sampler": "dpm-solver", "grid": "log_snr", "eta": 0.0}
    plain = exact_deft(DEFTConfig(**options)).reconstruct(y, measurement, num_samples=2)
    stepped = exact_deft(DEFTConfig(**options, consistency_steps=40, consistency_spread=0.3))
    found = stepped.reconstruct(y, measurement, num_samples=2)
    normal = matrix.T @ matrix / SIGMA**2 + torch.eye(PIXELS).double() / 0.3**2
    assert plain.samples is not None and found.samples is not None
    for i in range(3):
        for before, after in zip(plain.samples[i], found.samples[i], strict=True):
            x0 = before.flatten()
            expected = x0 + torch.linalg.solve(normal, matrix.T @ (y[i].flatten() - matrix @ x0) / SIGMA**2)
            torch.testing.assert_close(after.flatten(), expected, rtol=1e-3, atol=1e-4)
    assert found.provenance["data_residual"] < plain.provenance["data_residual"]


def test_the_consistency_step_needs_a_linear_operator() -> None:
    prior = exact_deft().prior
    head = tiny_htransform(prior, reference="none", guidance="score")
    measurement = Measurement(PhaseRetrieval((1, SIDE, SIDE)), GaussianNoise(0.1))
    y = measurement.simulate(torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
    method = DEFT(prior, head, DEFTConfig(steps=2, consistency_steps=2))
    with pytest.raises(ValueError, match="consistency_steps needs a linear operator"):
        method.reconstruct(y, measurement)


def test_guidance_strength_scales_what_the_data_add() -> None:
    """Strength 1 is the posterior; more pulls the mean further in the direction of the data."""
    gaussian, _, _ = world()
    options = {"steps": 50, "sampler": "dpm-solver", "grid": "log_snr", "eta": 1.0}
    mean, _, exact, _ = moments(**options, guidance_strength=1.0)
    shift = (exact - gaussian.mean).norm()
    assert (mean - exact).norm() < 0.1 * shift
    stronger = moments(**options, guidance_strength=1.5)[0]
    assert (stronger - gaussian.mean).norm() > 1.02 * shift


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "dpm-solver", "grid": "log_snr", "eta": 1.0},
        {"sampler": "dpm-solver", "grid": "karras", "eta": 0.0, "start": 0.3, "start_from": "tv"},
        {"grid": "quadratic", "start": 0.2, "start_from": "fbp", "consistency_steps": 4},
        {"estimate": "mean", "consistency_steps": 3, "guidance_strength": 1.2},
    ],
)
def test_options_are_deterministic_and_do_not_depend_on_the_batch(options: dict[str, Any]) -> None:
    prior, scan = tiny_prior(), tiny_scan()
    head = tiny_htransform(prior, reference="tv")
    y = scan.simulate(tiny_slices(3), seed=1)
    whole = DEFT(prior, head, DEFTConfig(steps=4, batch_size=5, **options))
    single = DEFT(prior, head, DEFTConfig(steps=4, batch_size=1, **options))
    all_at_once = whole.reconstruct(y, scan, num_samples=2, seed=7, image_ids="abc")
    torch.manual_seed(1)
    again = whole.reconstruct(y, scan, num_samples=2, seed=7, image_ids="abc")
    assert all_at_once.samples is not None and again.samples is not None
    assert torch.equal(all_at_once.samples, again.samples)
    assert torch.equal(all_at_once.mean, again.mean)
    scale = all_at_once.samples.abs().max()
    for i, key in enumerate("abc"):
        alone = single.reconstruct(y[i : i + 1], scan, num_samples=2, seed=7, image_ids=[key])
        assert alone.samples is not None
        torch.testing.assert_close(alone.samples[0] / scale, all_at_once.samples[i] / scale, rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.mean[0] / scale, all_at_once.mean[i] / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [
        {"sampler": "heun"}, {"grid": "cubic"}, {"guidance_strength": 0.0}, {"consistency_steps": -1},
        {"consistency_spread": 0.0}, {"start": 0.0}, {"start_from": "sirt"},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad)).partition("_")[0]):
        DEFTConfig(**bad)


# The posterior mean in a few evaluations.


@pytest.mark.parametrize("rounds", [0, 2])
def test_the_direct_mean_is_the_posterior_mean(rounds: int) -> None:
    """At the noisiest time the exact conditional denoiser is E[x0 | y], but for what is left of x_t there."""
    gaussian, matrix, measurement = world()
    _, y = known_images(20)
    for draws in (1, 4):
        method = exact_deft(DEFTConfig(estimate="mean", draws=draws, rounds=rounds))
        found = method.reconstruct(y, measurement)
        assert found.provenance["network_evaluations_per_image"] == draws * (1 + 2 * rounds)
        for i in range(20):
            exact = gaussian.posterior(matrix, SIGMA, y[i].flatten())
            error = (found.mean[i].flatten() - exact.mean).norm() / exact.cov.trace().sqrt()
            # sigma = 157 at the noisiest time: x_t still moves the estimate by s / 157 of a spread s = 0.5 at most.
            assert error < 0.01


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_mean_of_samples_loses_a_factor_in_variance(count: int) -> None:
    """``E|mean of N samples - x|^2 = (1 + 1/N) E|posterior mean - x|^2``."""
    _, _, measurement = world()
    x, y = known_images(400)
    options = {
        "steps": 30,
        "sampler": "dpm-solver",
        "grid": "log_snr",
        "eta": 0.0,
        "batch_size": 4000,
        "estimate": "samples",
    }
    direct = exact_deft(DEFTConfig(estimate="mean", draws=1)).reconstruct(y, measurement).mean
    samples = exact_deft(DEFTConfig(**options)).reconstruct(y, measurement, num_samples=count).mean
    best = (direct - x).square().sum()
    # Paired over 400 images of 16 pixels: a ratio of 1 + 1/N within 5 % (two standard errors at N = 1).
    assert (samples - x).square().sum() / best == pytest.approx(1 + 1 / count, rel=0.05)
    gaussian, matrix, _ = world()
    exact = gaussian.posterior(matrix, SIGMA, torch.zeros(ROWS).double()).cov.trace()
    assert best / 400 == pytest.approx(float(exact), rel=0.1)
