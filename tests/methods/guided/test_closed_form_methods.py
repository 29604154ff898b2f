"""The zero-shot methods against closed forms: where they are exact, how far they are off elsewhere, and two modes.

The priors are exact (no network is trained), so every deviation is the method's own. Errors of the mean are given in
spreads of the posterior, ``|mean - exact| / sqrt(tr S)``; 400 draws alone give 0.05.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from gaussian import Gaussian, MatrixOperator, gaussian_prior, smooth_gaussian
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import ddim_coefficients
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided.daps import exact_draw, langevin
from deft_ct.methods.guided.ddnm import DDNMStep, spectral_rectifier
from deft_ct.methods.guided.sampling import Chunk
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators import GaussianNoise, LinearOperator, NoNoise, SuperResolution

SIDE, PIXELS, ROWS, DRAWS = 4, 16, 6, 400
WHITE = Gaussian(0.3 * torch.ones(PIXELS).double(), torch.eye(PIXELS).double())


def dense() -> tuple[LinearOperator, Tensor]:
    matrix = torch.randn(ROWS, PIXELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4
    return MatrixOperator(matrix, SIDE), matrix


def pooled() -> tuple[LinearOperator, Tensor]:
    """2 x 2 average pooling: it has a singular value decomposition."""
    operator = SuperResolution((1, SIDE, SIDE), 2)
    columns = [operator(e.reshape(1, 1, SIDE, SIDE)).flatten() for e in torch.eye(PIXELS).double()]
    return operator, torch.stack(columns, 1)


def identity() -> tuple[LinearOperator, Tensor]:
    return MatrixOperator(torch.eye(PIXELS).double(), SIDE), torch.eye(PIXELS).double()


def compare(
    gaussian: Gaussian, name: str, sigma: float, problem: tuple[LinearOperator, Tensor], options: dict[str, Any]
) -> tuple[float, float]:
    """Error of the mean in spreads of the posterior, and the ratio of the total variances."""
    operator, matrix = problem
    noise = torch.randn(len(matrix), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = matrix @ gaussian.draw(1, seed=2)[0] + sigma * noise
    exact = gaussian.posterior(matrix, max(sigma, 1e-4), y)
    measurement = Measurement(operator, GaussianNoise(sigma) if sigma else NoNoise())
    method = load_reconstructor(name, prior=gaussian_prior(gaussian, SIDE), batch_size=DRAWS, **options)
    result = method.reconstruct(y.reshape(1, *operator.range_shape), measurement, num_samples=DRAWS)
    assert result.samples is not None
    draws = result.samples[0].flatten(1)
    error = (draws.mean(0) - exact.mean).norm() / exact.cov.trace().sqrt()
    return float(error), float(torch.cov(draws.T).trace() / exact.cov.trace())


@pytest.mark.parametrize(
    ("name", "svd", "options", "spread"),
    [
        # White prior, noise-free data: what the data fix and what they leave are independent, so that replacing the
        # first leaves the second to the prior: exact but for the steps of the sampler (variance 2 to 8 % low).
        ("pigdm", False, {"steps": 200}, (0.9, 1.05)),
        ("dds", False, {"steps": 100, "eta": 1.0, "cg_iterations": 20}, (0.88, 1.05)),
        ("ddnm", False, {"steps": 100, "eta": 1.0}, (0.88, 1.05)),
        ("ddnm", True, {"steps": 100, "eta": 1.0}, (0.88, 1.05)),
        ("mcg", False, {"steps": 200, "cg_iterations": 20}, (0.88, 1.05)),
        # Right in the mean; their mix of old and fresh noise is not that of a diffusion, and the spread is too small.
        ("ddrm", True, {"steps": 100}, (0.6, 0.8)),
        ("diffpir", False, {"zeta": 1.0}, (0.35, 0.6)),
    ],
)
def test_exact_on_a_white_prior_with_noise_free_data(
    name: str, svd: bool, options: dict[str, Any], spread: tuple[float, float]
) -> None:
    error, ratio = compare(WHITE, name, 0.0, pooled() if svd else dense(), options)
    assert error < 0.1
    assert spread[0] < ratio < spread[1]


def test_pigdm_is_exact_on_a_white_prior_with_noisy_data() -> None:
    error, ratio = compare(WHITE, "pigdm", 0.2, dense(), {"steps": 200})
    assert error < 0.1 and 0.9 < ratio < 1.05


def test_pigdm_is_exact_for_the_spread_that_it_is_told() -> None:
    narrow = Gaussian(0.3 * torch.ones(PIXELS).double(), 0.04 * torch.eye(PIXELS).double())
    error, ratio = compare(narrow, "pigdm", 0.2, identity(), {"steps": 500, "data_std": 0.2})
    assert error < 0.1 and 0.88 < ratio < 1.05
    wrong, _ = compare(narrow, "pigdm", 0.2, identity(), {"steps": 500, "data_std": 1.0})
    assert wrong > 2 * error


@pytest.mark.parametrize(
    ("name", "svd", "options", "error", "ratio"),
    [
        # A smooth prior, noise 0.2: the covariance of the denoised image is not white, which every method but DEFT
        # with the exact h assumes in some way. The bias is bounded from both sides: it is there, and it is this big.
        ("pigdm", False, {"steps": 200, "data_std": 1.0}, (0.2, 0.6), (0.9, 1.4)),
        ("pigdm", False, {"steps": 200}, (0.3, 0.7), (0.9, 1.4)),
        ("dds", False, {"steps": 100, "eta": 1.0, "cg_iterations": 20}, (0.2, 0.5), (0.35, 0.7)),
        ("ddnm", False, {"steps": 100, "eta": 1.0}, (0.3, 0.7), (0.8, 1.3)),
        ("ddnm", True, {"steps": 100, "eta": 1.0}, (0.0, 0.2), (0.35, 0.7)),
        ("ddrm", True, {"steps": 100}, (0.0, 0.15), (0.35, 0.7)),
        ("diffpir", False, {"strength": 1.0, "zeta": 1.0}, (0.15, 0.4), (0.35, 0.7)),
        ("daps", False, {"steps": 50}, (0.15, 0.4), (1.5, 2.8)),
        ("dps", False, {"steps": 200, "zeta": 1.0}, (0.3, 0.7), (4.0, 8.0)),
        ("dps", False, {"steps": 200}, (0.3, 0.7), (0.7, 1.3)),
        ("mcg", False, {"steps": 200, "zeta": 1.0}, (0.6, 1.3), (0.3, 0.6)),
        ("reddiff", False, {"steps": 300, "learning_rate": 0.02}, (0.4, 0.9), (0.01, 0.12)),
        ("unconditional", False, {}, (1.5, 3.5), (2.5, 4.5)),
    ],
)
def test_known_bias_on_a_smooth_prior(
    name: str, svd: bool, options: dict[str, Any], error: tuple[float, float], ratio: tuple[float, float]
) -> None:
    measured_error, measured_ratio = compare(smooth_gaussian(SIDE), name, 0.2, pooled() if svd else dense(), options)
    assert error[0] <= measured_error < error[1]
    assert ratio[0] < measured_ratio < ratio[1]


class MixtureNetwork(nn.Module):
    """The exact noise prediction of two equal Gaussians ``N(+-centre, spread^2 I)``."""

    def __init__(self, centre: Tensor, spread: float, schedule: Schedule) -> None:
        super().__init__()
        self.centre, self.spread, self.schedule = centre, spread, schedule

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a = self.schedule.alpha_bar(t).reshape(-1, 1)
        x_t, variance = x.flatten(1).double(), a * self.spread**2 + 1 - a
        sign = torch.tanh(a.sqrt() * (x_t @ self.centre)[:, None] / variance)
        return ((1 - a).sqrt() * (x_t - a.sqrt() * sign * self.centre) / variance).reshape(x.shape).to(x.dtype)


@pytest.mark.parametrize(
    ("name", "svd", "options"),
    [
        ("pigdm", False, {"steps": 100, "data_std": 0.3}),
        ("dds", False, {}),
        ("ddnm", False, {}),
        ("ddrm", True, {"steps": 50}),
        ("diffpir", False, {}),
        ("daps", False, {"steps": 50}),
        ("dps", False, {"steps": 200, "zeta": 0.3}),
        ("mcg", False, {"steps": 200, "zeta": 0.3}),
        ("reddiff", False, {"steps": 300, "learning_rate": 0.05}),
        ("unconditional", False, {"sampler": "dpm-solver", "steps": 50}),
    ],
)
def test_both_modes_of_an_ambiguous_measurement_are_sampled(name: str, svd: bool, options: dict[str, Any]) -> None:
    operator, matrix = pooled() if svd else dense()
    # The two centres differ in a direction that the data do not see.
    _, _, vh = torch.linalg.svd(matrix)
    centre = 2.0 * vh[-1]
    assert (matrix @ centre).norm() < 1e-12
    prior = Prior(
        MixtureNetwork(centre, 0.3, Schedule()), Schedule(), prediction="epsilon", image_shape=(1, SIDE, SIDE)
    )
    measurement = Measurement(operator, GaussianNoise(0.1))
    noise = torch.randn(PIXELS, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    y = measurement.simulate((centre + 0.3 * noise).reshape(1, 1, SIDE, SIDE))
    result = load_reconstructor(name, prior=prior, batch_size=200, **options).reconstruct(
        y, measurement, num_samples=200
    )
    assert result.samples is not None
    position = result.samples[0].flatten(1) @ centre / centre.square().sum()  # +1 and -1 are the modes
    assert 0.3 < float((position > 0).double().mean()) < 0.7
    assert float(((position.abs() - 1).abs() < 0.6).double().mean()) > 0.9


def test_the_proximal_step_is_the_closed_form() -> None:
    """``correction`` against a dense solve, with weights and with the affine map to physical units."""
    operator, matrix = dense()
    measurement = Measurement(operator, GaussianNoise(0.2))
    y = torch.randn(2, 1, 1, ROWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    term = DataTerm(measurement.likelihood(y), weighted=True)
    weights = 0.5 + torch.rand(2, ROWS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    term.weights = weights.reshape(2, 1, 1, ROWS)
    x = torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    damping = torch.tensor([0.1, 3.0], dtype=torch.float64)
    found = term.correction(x, damping, iterations=60)
    for i in range(2):
        normal = matrix.T @ (weights[i, :, None] * matrix) + damping[i] * torch.eye(PIXELS)
        rhs = matrix.T @ (weights[i] * (y[i].flatten() - matrix @ x[i].flatten()))
        torch.testing.assert_close(found[i].flatten(), torch.linalg.solve(normal, rhs), rtol=1e-3, atol=1e-5)


def test_the_noise_of_ddnm_makes_room_for_that_of_the_data() -> None:
    """With the true image as estimate, the noise of all steps and the data's together are that of the diffusion.

    The noise of the data is the same at every step: counted step by step, it adds up, and the variance is 1.8 times
    that of the diffusion here.
    """
    operator, _ = pooled()
    count, sigma = 4000, 0.5
    generator = torch.Generator().manual_seed(2)
    truth = torch.full((count, 1, SIDE, SIDE), 0.4, dtype=torch.float64)
    measurement = Measurement(operator, GaussianNoise(sigma))
    likelihood = measurement.likelihood(measurement.noise.sample(operator(truth), generator))
    chunk = Chunk(
        likelihood=likelihood, part=slice(0, count), start=truth, generators=[generator] * count, tick=lambda _: None
    )
    rectify, schedule = spectral_rectifier(chunk), Schedule()
    times = list(range(999, -1, -37))
    x = chunk.normal(truth)
    for t, s in itertools.pairwise(times):
        a_t, a_s = float(schedule.alpha_bar(t)), float(schedule.alpha_bar(s))
        signal, direction, fresh = ddim_coefficients(schedule, t, s, 0.85)
        along = direction / (1 - a_t) ** 0.5
        weight = signal - along * a_t**0.5
        corrected, noise = rectify(truth, DDNMStep(weight, along, fresh))
        assert noise is not None
        x = weight * corrected + along * x + noise
    covariance = torch.cov(x.flatten(1).T)
    exact = (1 - a_s) * torch.eye(PIXELS).double()
    assert torch.linalg.matrix_norm(covariance - exact) / torch.linalg.matrix_norm(exact) < 0.1  # Monte Carlo: 0.065
    assert float((x - a_s**0.5 * truth).mean().abs()) < 0.05 * (1 - a_s) ** 0.5


@pytest.mark.parametrize("inner", ["cg", "langevin"])
def test_the_inner_draw_of_daps_is_the_gaussian_that_it_should_be(inner: str) -> None:
    """One level of DAPS around a known centre: mean and covariance of ``p(y | x) N(x; centre, r^2 I)``.

    Monte Carlo alone gives 0.03 and 0.13.
    """
    operator, matrix = dense()
    count, radius, sigma = 1000, 0.25, 0.3
    y = torch.randn(ROWS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    likelihood = Measurement(operator, GaussianNoise(sigma)).likelihood(y.reshape(1, 1, 1, ROWS)).repeat(count)
    centre = torch.full((count, 1, SIDE, SIDE), 0.2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(9)
    chunk = Chunk(
        likelihood=likelihood, part=slice(0, count), start=centre, generators=[generator] * count, tick=lambda _: None
    )
    if inner == "cg":
        draws = exact_draw(DataTerm(likelihood), centre, radius, chunk, 40)
    else:
        draws = langevin(DataTerm(likelihood), centre, radius, chunk, 300, 0.1)
    expected = Gaussian(centre[0].flatten(), radius**2 * torch.eye(PIXELS).double()).posterior(matrix, sigma, y)
    draws = draws.flatten(1)
    assert (draws.mean(0) - expected.mean).norm() / expected.cov.trace().sqrt() < 0.07
    assert torch.linalg.matrix_norm(torch.cov(draws.T) - expected.cov) / torch.linalg.matrix_norm(expected.cov) < 0.2
