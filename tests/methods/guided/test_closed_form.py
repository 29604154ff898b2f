"""DEFT against the closed form of a Gaussian prior, a linear operator and Gaussian noise (no network trained)."""

import pytest
import torch
from gaussian import gaussian_prior, smooth_gaussian

from deft_ct.diffusion.samplers import ddim
from deft_ct.diffusion.schedule import Schedule, time_grid
from deft_ct.runtime.seeds import normal_like

SIDE, ROWS, SIGMA = 4, 6, 0.2


@pytest.fixture
def problem():
    gaussian = smooth_gaussian(SIDE)
    matrix = torch.randn(ROWS, SIDE * SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4
    truth = gaussian.draw(1, seed=2)[0]
    noise = torch.randn(ROWS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = matrix @ truth + SIGMA * noise
    return gaussian, matrix, y, gaussian.posterior(matrix, SIGMA, y)


def exact_h(gaussian, matrix, y, x_t, abar):
    """``grad_x ln p(y | x_t) = G^T A^T (A C A^T + sigma^2 I)^-1 (y - A x0h)`` for a batch at one noise level."""
    eye = torch.eye(SIDE * SIDE, dtype=torch.float64)
    mixed = torch.linalg.inv(abar * gaussian.cov + (1 - abar) * eye)
    jacobian = abar**0.5 * gaussian.cov @ mixed
    tweedie = (
        x_t - (1 - abar) ** 0.5 * gaussian.eps(x_t, torch.full((len(x_t),), abar, dtype=torch.float64))
    ) / abar**0.5
    spread = gaussian.cov - abar * gaussian.cov @ mixed @ gaussian.cov
    inverse = torch.linalg.inv(matrix @ spread @ matrix.T + SIGMA**2 * torch.eye(ROWS).double())
    return (y - tweedie @ matrix.T) @ inverse.T @ matrix @ jacobian


@pytest.mark.parametrize("abar", [0.999, 0.7, 0.1, 1e-4])
def test_exact_h_is_the_difference_of_the_two_scores(problem, abar):
    gaussian, matrix, y, posterior = problem
    x_t = torch.randn(5, SIDE * SIDE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    level = torch.full((5,), abar, dtype=torch.float64)
    eps_h = posterior.eps(x_t, level) - gaussian.eps(x_t, level)
    torch.testing.assert_close(
        eps_h, -((1 - abar) ** 0.5) * exact_h(gaussian, matrix, y, x_t, abar), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize(("eta", "steps"), [(0.0, 1000), (1.0, 1000)])
def test_sampling_with_the_exact_h_gives_the_posterior(problem, eta, steps):
    gaussian, matrix, y, posterior = problem
    schedule, count, blocks = Schedule(), 4000, 20
    prior = gaussian_prior(gaussian, SIDE, schedule)

    def denoise(x, t):  # a block of 200 draws shares a generator: the channels of one image, here
        abar, x_t = float(schedule.alpha_bar(t)), x.reshape(-1, 1, SIDE, SIDE)
        _, eps = prior.predict(x_t, t)
        eps = eps - (1 - abar) ** 0.5 * exact_h(gaussian, matrix, y, x_t.flatten(1), abar).reshape(x_t.shape)
        return schedule.x0_from_eps(x_t, eps, torch.tensor(float(t))).reshape(x.shape), eps.reshape(x.shape)

    generators = [torch.Generator().manual_seed(100 + k) for k in range(blocks)]
    start = normal_like(torch.empty(blocks, count // blocks, SIDE, SIDE, dtype=torch.float64), generators)
    draws = ddim(denoise, start, schedule, time_grid(schedule, steps), eta=eta, generators=generators)
    draws = draws.reshape(count, -1)

    spread = posterior.cov.diagonal().sqrt()
    mean_error = (draws.mean(0) - posterior.mean) / spread
    # The standard error of the mean is 1/sqrt(4000) = 0.016 posterior spreads; the largest of 16 stays below 4 of them.
    assert mean_error.abs().max() < 0.065
    cov_error = torch.linalg.matrix_norm(torch.cov(draws.T) - posterior.cov) / torch.linalg.matrix_norm(posterior.cov)
    # Monte Carlo alone gives sqrt(tr(S)^2 + |S|^2) / (|S| sqrt(4000)) = 0.044 here.
    assert cov_error < 0.065
