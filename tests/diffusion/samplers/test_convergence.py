"""Few steps on a Gaussian posterior: error of mean and covariance against the number of evaluations, without sampling.

With an exact denoiser of a Gaussian every sampler is affine in its start and its noise, so that pushing unit vectors
through it gives mean and covariance of its output to rounding error.
"""

from __future__ import annotations

import importlib
import math
from functools import cache

import pytest
import torch
from documented_tables import table_after
from gaussian import Gaussian, gaussian_prior, smooth_gaussian
from torch import Tensor

from deft_ct.diffusion.samplers import SAMPLERS, SamplerName
from deft_ct.diffusion.schedule import Schedule, Spacing, time_grid

SIDE, PIXELS, ROWS, SIGMA = 4, 16, 6, 0.2
COUNTS = (5, 10, 20, 50, 100)


def posterior() -> Gaussian:
    """Of the smooth prior: prior and exact h together are its denoiser (tests/methods/guided/test_closed_form.py)."""
    prior = smooth_gaussian(SIDE)
    matrix = torch.randn(ROWS, PIXELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4
    noise = torch.randn(ROWS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return prior.posterior(matrix, SIGMA, matrix @ prior.draw(1, seed=2)[0] + SIGMA * noise)


@cache
def errors(sampler: SamplerName, spacing: Spacing, count: int, eta: float = 0.0) -> tuple[float, float]:
    """Error of the mean in spreads of the posterior, and relative error of the covariance."""
    exact, schedule = posterior(), Schedule()
    denoise = gaussian_prior(exact, SIDE, schedule).predict
    times = time_grid(schedule, count, spacing=spacing)
    sources = 1 + (count - 1 if eta else 0)  # the start, and the noise of every step but the last
    rows = 1 + sources * PIXELS  # row 0: everything zero, which gives the mean
    drawn = 0

    def unit(x: Tensor, _generators: object = ()) -> Tensor:
        nonlocal drawn
        out = torch.zeros(rows, PIXELS, dtype=torch.float64)
        out[1 + drawn * PIXELS : 1 + (drawn + 1) * PIXELS] = torch.eye(PIXELS, dtype=torch.float64)
        drawn += 1
        return out.reshape(x.shape)

    start = unit(torch.empty(rows, 1, SIDE, SIDE))
    with pytest.MonkeyPatch.context() as patch:
        for module in ("ddim", "dpm_solver"):
            patch.setattr(importlib.import_module(f"deft_ct.diffusion.samplers.{module}"), "normal_like", unit)
        out = SAMPLERS[sampler](denoise, start, schedule, times, eta=eta).flatten(1)
    assert drawn == sources
    response = out[1:] - out[0]
    mean_error = (out[0] - exact.mean).norm() / exact.cov.trace().sqrt()
    covariance_error = torch.linalg.matrix_norm(response.T @ response - exact.cov) / torch.linalg.matrix_norm(exact.cov)
    return float(mean_error), float(covariance_error)


def order(sampler: SamplerName, spacing: Spacing, eta: float) -> float:
    """Of the covariance error, from 20 to 100 evaluations."""
    coarse, fine = (errors(sampler, spacing, count, eta)[1] for count in (20, 100))
    return math.log(coarse / fine) / math.log(5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["quadratic", "log_snr", "karras"])
def test_the_order_of_convergence(spacing: Spacing, eta: float) -> None:
    assert 0.7 < order("ddim", spacing, eta) < 1.2
    assert 1.8 < order("dpm-solver", spacing, eta) < 2.6


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_early_end_of_a_uniform_grid_costs_the_second_order(eta: float) -> None:
    assert order("ddim", "uniform", eta) < 1.0
    assert order("dpm-solver", "uniform", eta) < 1.75


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["quadratic", "log_snr"])
def test_second_order_needs_a_third_of_the_evaluations(spacing: Spacing, eta: float) -> None:
    for count in COUNTS:
        assert errors("dpm-solver", spacing, count, eta)[1] < 0.6 * errors("ddim", spacing, count, eta)[1]
    assert errors("dpm-solver", spacing, 20, eta)[1] < 1.3 * errors("ddim", spacing, 50, eta)[1]
    # What the uniform grid with ancestral sampling of first order loses at 20 evaluations, and what this leaves of it.
    assert errors("ddim", "uniform", 20, 1.0)[1] > 0.4
    assert errors("dpm-solver", spacing, 20, eta)[1] < 0.15


@pytest.mark.parametrize("count", COUNTS)
def test_the_mean_is_right_for_any_number_of_steps(count: int) -> None:
    """All of these samplers keep the mean of a Gaussian; what is left is the start at zero instead of sqrt(abar) m."""
    for sampler in ("ddim", "dpm-solver"):
        assert errors(sampler, "quadratic", count, 0.0)[0] < 0.006  # type: ignore[arg-type]
        assert errors(sampler, "quadratic", count, 1.0)[0] < 1e-4  # type: ignore[arg-type]


def test_the_table_of_the_page_is_what_is_computed_here() -> None:
    rows = table_after("docs/method.md", "covariance with an exact denoiser of a Gaussian posterior.")
    assert len(rows) == 7
    for name, *cells in rows:
        sampler, eta, spacing = name.replace(" (default)", "").split(", ")
        for count, cell in zip(COUNTS, cells, strict=True):
            found = errors(sampler.lower(), spacing, count, float(eta))[1]  # type: ignore[arg-type]
            places = len(cell.partition(".")[2])
            assert places >= 2 and cell == f"{found:.{places}f}", f"{name}, {count}"
