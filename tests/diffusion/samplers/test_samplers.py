"""The samplers against the closed-form flow of a Gaussian and against diffusers' schedulers."""

from __future__ import annotations

import pytest
import torch
from gaussian import Gaussian, GaussianNetwork, gaussian_prior, smooth_gaussian
from torch import Tensor

from deft_ct.diffusion.samplers import check_sampler, ddim, ddim_coefficients, dpm_solver, pairs
from deft_ct.diffusion.schedule import Schedule, time_grid

SIDE = 4


def start(count: int = 3) -> Tensor:
    return torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def flow(gaussian: Gaussian, x_t: Tensor, abar: float, abar_next: float) -> Tensor:
    """Where the probability-flow ODE of a Gaussian takes ``x_t``: each eigendirection keeps its place in the spread."""
    values, vectors = torch.linalg.eigh(gaussian.cov)
    centred = (x_t.flatten(1) - abar**0.5 * gaussian.mean) @ vectors
    gain = ((abar_next * values + 1 - abar_next) / (abar * values + 1 - abar)).sqrt()
    return ((centred * gain) @ vectors.T + abar_next**0.5 * gaussian.mean).reshape(x_t.shape)


def errors(name: str, counts: list[int]) -> list[float]:
    gaussian, schedule = smooth_gaussian(SIDE), Schedule()
    prior = gaussian_prior(gaussian, SIDE, schedule)
    exact = flow(gaussian, start(), float(schedule.alpha_bar(999)), 1.0)
    walks = {"ddim": ddim, "dpm": dpm_solver}
    return [
        float((walks[name](prior.predict, start(), schedule, time_grid(schedule, n)) - exact).norm()) for n in counts
    ]


def test_ddim_is_of_first_order() -> None:
    coarse, fine = errors("ddim", [100, 200])
    assert 1.6 < coarse / fine < 2.6


def test_dpm_solver_is_more_accurate_than_ddim_at_the_same_cost() -> None:
    counts = [20, 50, 100]  # both end with a step of first order
    for first, second in zip(errors("ddim", counts), errors("dpm", counts), strict=True):
        assert second < 0.7 * first


def test_dpm_solver_is_of_second_order_inside_the_schedule() -> None:
    """Between two fixed noise levels, where the last step is not of first order."""
    gaussian, schedule = smooth_gaussian(SIDE), Schedule()
    prior = gaussian_prior(gaussian, SIDE, schedule)
    top, bottom = 720, 160
    exact = flow(gaussian, start(), float(schedule.alpha_bar(top)), float(schedule.alpha_bar(bottom)))
    found = []
    for count in (20, 40, 80):
        seen: dict[int, Tensor] = {}

        def denoise(x: Tensor, t: float, seen: dict[int, Tensor] = seen) -> tuple[Tensor, Tensor]:
            seen[int(t)] = x
            return prior.predict(x, t)

        width = (top - bottom) // count
        dpm_solver(denoise, start(), schedule, list(range(top, bottom - 1, -width)))
        found.append(float((seen[bottom] - exact).norm()))
    assert found[0] / found[1] > 3 and found[1] / found[2] > 3


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_agrees_with_diffusers(eta: float) -> None:
    diffusers = pytest.importorskip("diffusers")
    gaussian, schedule, count = smooth_gaussian(SIDE), Schedule(), 20
    scheduler = diffusers.DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(count)
    times = time_grid(schedule, count)
    assert scheduler.timesteps.tolist() == times
    network, x = GaussianNetwork(gaussian, schedule), start(1)
    generator = torch.Generator().manual_seed(5)
    for t in scheduler.timesteps:
        eps = network(x, t.expand(1))
        noise = torch.randn(x.shape[1:], generator=generator)[None].double() if eta and t > 49 else torch.zeros_like(x)
        x = scheduler.step(eps, t, x, eta=eta, variance_noise=noise).prev_sample
    prior = gaussian_prior(gaussian, SIDE, schedule)
    ours = ddim(prior.predict, start(1), schedule, times, eta=eta, generators=[torch.Generator().manual_seed(5)])
    torch.testing.assert_close(ours, x, rtol=0, atol=2e-4)  # diffusers keeps the schedule in float32


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("eta", "kind"), [(0.0, "dpmsolver++"), (1.0, "sde-dpmsolver++")])
def test_dpm_solver_agrees_with_diffusers(eta: float, kind: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    gaussian, schedule, count = smooth_gaussian(SIDE), Schedule(), 20
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=1e-4, beta_end=0.02, algorithm_type=kind, solver_order=2, timestep_spacing="trailing",
        final_sigmas_type="zero",
    )  # fmt: skip
    scheduler.set_timesteps(count)
    times = [int(t) for t in scheduler.timesteps]
    network, x = GaussianNetwork(gaussian, schedule), start(1)
    generator = torch.Generator().manual_seed(5)
    for t in scheduler.timesteps:
        noise = torch.randn(x.shape[1:], generator=generator)[None].double() if eta and t > 49 else torch.zeros_like(x)
        x = scheduler.step(network(x, t.expand(1)), t, x, variance_noise=noise).prev_sample
    prior = gaussian_prior(gaussian, SIDE, schedule)
    ours = dpm_solver(prior.predict, start(1), schedule, times, eta=eta, generators=[torch.Generator().manual_seed(5)])
    torch.testing.assert_close(ours, x, rtol=0, atol=2e-4)


def test_steps_are_counted_and_times_checked() -> None:
    prior, schedule = gaussian_prior(smooth_gaussian(SIDE), SIDE), Schedule()
    for walk in (ddim, dpm_solver):
        seen: list[int] = []
        walk(prior.predict, start(), schedule, [900, 500, 100], callback=seen.append)
        assert seen == [1, 2, 3]
        with pytest.raises(ValueError, match="strictly decreasing"):
            walk(prior.predict, start(), schedule, [100, 500])
        with pytest.raises(ValueError, match="eta"):
            walk(prior.predict, start(), schedule, [900, 500], eta=1.5)
        with pytest.raises(ValueError, match="one generator"):
            walk(prior.predict, start(), schedule, [900, 500], eta=1.0)
    with pytest.raises(ValueError, match="unknown sampler 'heun'; known: ddim, dpm-solver"):
        check_sampler("heun")
    assert pairs([900, 500]) == [(900, 500), (500, -1)]
    assert ddim_coefficients(schedule, 10, -1, 1.0) == (1.0, 0.0, 0.0)
