from itertools import pairwise

import numpy as np
import pytest
import torch

from deft_ct.diffusion.schedule import SIGMA_MAX, SPACINGS, Schedule, time_grid


def test_linear_schedule_is_the_ddpm_one():
    expected = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(Schedule().alpha_bars.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_schedules_agree_with_diffusers(kind):
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    theirs = diffusers.DDPMScheduler(beta_schedule=kind, beta_start=1e-4, beta_end=0.02).alphas_cumprod
    torch.testing.assert_close(Schedule(kind=kind).alpha_bars.float(), theirs, rtol=2e-5, atol=1e-8)


def test_clean_data_have_no_noise_and_fractional_times_lie_between():
    schedule = Schedule()
    assert float(schedule.alpha_bar(-1)) == 1.0
    values = schedule.alpha_bar(torch.tensor([10.0, 10.5, 11.0]))
    assert values[0] == schedule.alpha_bars[10]
    assert values[0] > values[1] > values[2]


def test_conversions_invert_each_other():
    schedule, generator = Schedule(), torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 6, 1, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([0, 10, 200, 500, 900, 999])
    x_t = schedule.add_noise(x0, noise, t)
    torch.testing.assert_close(schedule.x0_from_eps(x_t, noise, t), x0)
    torch.testing.assert_close(schedule.eps_from_x0(x_t, x0, t), noise)
    back_x0, back_eps = schedule.x0_eps_from_v(x_t, schedule.velocity(x0, noise, t), t)
    torch.testing.assert_close(back_x0, x0)
    torch.testing.assert_close(back_eps, noise)


@pytest.mark.parametrize("kind", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("count", "last"), [(1, 999), (5, 999), (10, 400), (50, 999), (300, 299), (1000, 999)])
def test_time_grid_starts_at_the_noisiest_time_and_decreases(count, last, spacing, kind):
    grid = time_grid(Schedule(kind=kind), count, last=last, spacing=spacing)
    assert len(grid) == count
    assert grid[0] == last
    assert all(a > b for a, b in pairwise(grid))
    assert grid[-1] >= 0


def test_time_grids_are_even_in_what_they_say():
    schedule = Schedule()
    sigma = {spacing: schedule.sigmas[time_grid(schedule, 12, spacing=spacing)].numpy()[1:] for spacing in SPACINGS}
    times = {spacing: np.array(time_grid(schedule, 12, spacing=spacing)[1:]) for spacing in SPACINGS}
    for values in (
        times["uniform"], np.sqrt(times["quadratic"] + 1.0), np.log(sigma["log_snr"])[:-3], sigma["karras"] ** (1 / 7)
    ):  # fmt: skip
        steps = -np.diff(values)
        assert steps.min() > 0.9 * steps.max()
    # 20 uniform evaluations end at 0.17, four times the typical spread of a posterior; the other grids do not.
    last = {spacing: float(schedule.sigmas[time_grid(schedule, 20, spacing=spacing)[-1]]) for spacing in SPACINGS}
    assert last["uniform"] > 0.15
    assert max(last["quadratic"], last["log_snr"], last["karras"]) < 0.02
    # Schedules that end at much noise get one evaluation there.
    cosine = Schedule(kind="squaredcos_cap_v2")
    assert all(cosine.sigmas[t] <= SIGMA_MAX for t in time_grid(cosine, 12, spacing="karras")[1:])
    with pytest.raises(ValueError, match="unknown grid 'cubic'; known: uniform, quadratic, log_snr, karras"):
        time_grid(schedule, 5, spacing="cubic")


@pytest.mark.parametrize("count", [0, -3, 1001])
def test_time_grid_refuses_impossible_counts(count):
    with pytest.raises(ValueError, match="number of steps"):
        time_grid(Schedule(), count)


@pytest.mark.parametrize("bad", [{"steps": 1}, {"beta_start": 0.0}, {"beta_end": 2.0}, {"kind": "other"}])
def test_bad_schedules_are_refused(bad):
    with pytest.raises(ValueError):
        Schedule(**bad)


def test_the_continuous_schedule_is_the_vp_sde_and_what_the_linear_one_discretises():
    sde, linear = Schedule(kind="vp_sde"), Schedule()
    u = torch.tensor([0.0, 0.1234, 0.5, 1.0], dtype=torch.float64)  # of the SDE with rates from 0.1 to 20
    expected = torch.exp(-0.5 * u.square() * (20 - 0.1) - u * 0.1)
    torch.testing.assert_close(sde.alpha_bar(1000 * u - 1), expected, rtol=1e-12, atol=0)
    assert sde.continuous
    assert not linear.continuous
    torch.testing.assert_close(sde.alpha_bars, linear.alpha_bars, rtol=0.2, atol=1e-4)
    around = torch.tensor([299.9, 300.1], dtype=torch.float64)  # the rate of decay at a time is beta there
    slope = sde.alpha_bar(around).log().diff() / 0.2
    beta = 1e-4 + (0.02 - 1e-4) * 301 / 1000
    assert float(slope) == pytest.approx(-beta, rel=1e-6)


def test_networks_of_the_continuous_schedule_are_trained_at_real_times():
    from deft_ct.diffusion.train import sample_times

    t = sample_times(64, Schedule(kind="vp_sde"), torch.Generator().manual_seed(0), 1.0)
    assert t.dtype == torch.float32
    assert 0 <= float(t.min()) < float(t.max()) <= 999
    assert int((t != t.round()).sum()) > 60
    whole = sample_times(64, Schedule(), torch.Generator().manual_seed(0), 1.0)
    assert whole.dtype == torch.int64


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "vp_sde"])
def test_the_time_of_a_noise_is_found(kind):
    schedule = Schedule(kind=kind)
    low, high = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
    sigmas = torch.tensor(np.geomspace(1.001 * low, 0.9 * high, 50))
    times = schedule.time_of(sigmas)
    found = (1 / schedule.alpha_bar(times.double()) - 1).sqrt()
    torch.testing.assert_close(found, sigmas, rtol=1e-4, atol=0)
    assert (times % 1 != 0).any()
    whole = schedule.time_of(schedule.sigmas[[3, 500]])
    torch.testing.assert_close(whole, torch.tensor([3.0, 500.0]), rtol=1e-5, atol=0)
    ends = schedule.time_of(torch.tensor([low / 10, high * 10]))
    torch.testing.assert_close(ends, torch.tensor([0.0, 999.0]), rtol=0, atol=0)
