"""Stochastic control against closed forms: a Gaussian prior, a linear operator, steps of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gaussian import MatrixOperator, gaussian_prior, smooth_gaussian
from gaussian_chain import ExactHead, GaussianChain, LinearHead, Quadratic, gaussian_log_likelihood
from scipy.stats import poisson
from tiny import NETWORK, tiny_htransform, tiny_prior, tiny_scan, tiny_slices
from torch import Tensor, nn

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.pairs import SlicePairs
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import Condition, HTransform, HTransformConfig, condition_for
from deft_ct.methods.deft.control import (
    ControlConfig,
    Paths,
    control_times,
    draw_paths,
    log_variance,
    path_costs,
    trajectory_balance,
)
from deft_ct.methods.deft.guidance import AdjointGuidance, Guidance, ScoreGuidance
from deft_ct.methods.deft.train_control import (
    ControlTraining,
    SimulatedMeasurements,
    StoredMeasurements,
    finetune_online,
    train_control,
)
from deft_ct.networks import UNetConfig
from deft_ct.operators.noise import GaussianNoise
from deft_ct.training import TrainingConfig

SIDE, ROWS, SIGMA = 4, 6, 0.3
RATE = 0.03
SCHEDULE, GAUSSIAN = Schedule(), smooth_gaussian(SIDE)
MATRIX = torch.randn(ROWS, SIDE**2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4
PRIOR = gaussian_prior(GAUSSIAN, SIDE, SCHEDULE)
Y = MATRIX @ GAUSSIAN.draw(1, seed=2)[0] + SIGMA * torch.randn(
    ROWS, generator=torch.Generator().manual_seed(3), dtype=torch.float64
)
LIKELIHOOD = Measurement(MatrixOperator(MATRIX, SIDE), GaussianNoise(SIGMA)).likelihood(Y.reshape(1, 1, 1, ROWS))
CLEAN = gaussian_log_likelihood(MATRIX, SIGMA, Y)


def normal(seed: int) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


class RawScore(Guidance):
    """The score itself: the exact head is a matrix times it."""

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        return likelihood.score(x0)


def walk(head: nn.Module, times: list[int], count: int, seed: int = 0, likelihood: Likelihood = LIKELIHOOD) -> Paths:
    return draw_paths(
        head, PRIOR, likelihood.repeat(count), Condition(), times, guidance=RawScore(), normal=normal(seed)
    )


class LogLinear(Likelihood):
    """``ln p(y | x) = b . x``: the exact kernels have the prior's own covariance."""

    slope = torch.linspace(-3, 3, SIDE**2, dtype=torch.float64)

    def repeat(self, count: int) -> Likelihood:
        return LogLinear(self.measurement, self.y.repeat_interleave(count, 0), self.to_physical)

    def log_prob(self, x0: Tensor) -> Tensor:
        return x0.flatten(1) @ self.slope


@pytest.mark.parametrize("count", [3, 10])
def test_the_cost_is_constant_at_the_exact_h_of_a_log_linear_likelihood(count: int) -> None:
    times = control_times(SCHEDULE, count)
    chain = GaussianChain(GAUSSIAN, SCHEDULE, times)
    clean = Quadratic(torch.zeros(SIDE**2, SIDE**2).double(), LogLinear.slope, torch.tensor(0.0).double())
    head = ExactHead(chain, clean)
    paths = walk(head, times, 50, likelihood=LogLinear(LIKELIHOOD.measurement, LIKELIHOOD.y, LIKELIHOOD.to_physical))
    costs = path_costs(head, paths)
    # The start is N(0, I) and not tilted, so ln h at the first time remains, and nothing else.
    start = chain.values(clean)[times[0]](paths.steps[0].x_t.flatten(1))
    torch.testing.assert_close(costs, -start, rtol=0, atol=1e-6)
    assert costs.var() < 1e-2 < walk(ExactHead(chain, clean, 0.0), times, 50).reward.var()
    too_weak = path_costs(weak := ExactHead(chain, clean, 0.9), walk(weak, times, 50))
    assert too_weak.var() > 10 * costs.var()


def test_the_variance_at_the_exact_h_falls_with_the_number_of_steps() -> None:
    """A quadratic likelihood narrows the exact kernels too, which the control cannot: first order in the step."""
    variances = []
    for count in (20, 40, 80):
        times = control_times(SCHEDULE, count)
        head = ExactHead(GaussianChain(GAUSSIAN, SCHEDULE, times), CLEAN)
        variances.append(float(path_costs(head, walk(head, times, 1000)).var()))
    assert variances[0] < 0.6
    # Monte Carlo: 5 % of each variance.
    assert 1.6 < variances[0] / variances[1] < 2.6
    assert 1.6 < variances[1] / variances[2] < 2.6


@pytest.mark.parametrize(("count", "strength"), [(4, 0.7), (12, 0.8), (12, 1.1)])
def test_the_weights_of_the_paths_give_the_evidence_at_any_number_of_steps(count: int, strength: float) -> None:
    """``E_Q[exp(-C)] = Z`` for any control, also a wrong one: the ratio of the kernels is exact, not a limit."""
    times = control_times(SCHEDULE, count)
    chain = GaussianChain(GAUSSIAN, SCHEDULE, times)
    head = ExactHead(chain, CLEAN, strength)
    weights = -path_costs(head, walk(head, times, 4000))
    relative = (weights - chain.log_evidence(CLEAN)).exp()
    assert abs(relative.mean() - 1) < 4 * relative.std() / 4000**0.5
    assert relative.std() < 3  # so that the bound above means something


def _gradients(network: nn.Module, loss: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, network.parameters(), strict=True)]


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("on_policy", [True, False])
def test_the_gradient_step_by_step_is_that_of_the_full_graph(balance: bool, on_policy: bool) -> None:
    prior, scan = tiny_prior(), tiny_scan()
    head = tiny_htransform(prior, reference="fbp", network=NETWORK).requires_grad_(True)
    other = head if on_policy else tiny_htransform(prior, seed=8, reference="fbp")
    likelihood = scan.likelihood(scan.simulate(tiny_slices(2)), prior.value_range)
    condition = condition_for(likelihood, head).repeat(3)
    times = control_times(prior.schedule, 5)
    paths = draw_paths(other, prior, likelihood.repeat(3), condition, times, guidance=head.guidance, normal=normal(0))
    full = torch.stack([step.log_ratio(head, condition) for step in paths.steps]).sum(0) - paths.reward
    costs = path_costs(head, paths, on_policy=on_policy)
    torch.testing.assert_close(costs, full)
    level = torch.tensor([-1e4, -2e4])
    losses = [trajectory_balance(c, level, 3) if balance else log_variance(c, 3) for c in (costs, full)]
    step_by_step, whole = (_gradients(head, loss) for loss in losses)
    assert sum(float(g.abs().sum()) for g in whole) > 0
    for a, b in zip(step_by_step, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()) + 1e-12)


def test_activations_do_not_grow_with_the_number_of_steps() -> None:
    prior, scan = tiny_prior(), tiny_scan()
    head = tiny_htransform(prior, reference="fbp").requires_grad_(True)
    likelihood = scan.likelihood(scan.simulate(tiny_slices(1)), prior.value_range)
    condition = condition_for(likelihood, head).repeat(2)
    held = most = 0

    class Saved:
        """A tensor of a graph, counted as long as the graph holds it."""

        def __init__(self, tensor: Tensor) -> None:
            nonlocal held, most
            self.tensor, self.size = tensor, tensor.numel()
            held += self.size
            most = max(most, held)

        def __del__(self) -> None:
            nonlocal held
            held -= self.size

    peaks = []
    for count in (3, 9):
        paths = draw_paths(
            head, prior, likelihood.repeat(2), condition, control_times(prior.schedule, count),
            guidance=head.guidance, normal=normal(0),
        )  # fmt: skip
        for full in (False, True):
            held = most = 0
            with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
                costs = (
                    torch.stack([step.log_ratio(head, condition) for step in paths.steps]).sum(0) - paths.reward
                    if full
                    else path_costs(head, paths)
                )
                log_variance(costs, 2).backward()
            del costs
            peaks.append(most)
    few, few_full, many, many_full = peaks
    assert many < 1.05 * few
    assert many_full > 3 * few_full


def test_the_terminal_cost_is_the_likelihood_of_the_counts() -> None:
    """Poisson data: each ray counts by its photons; compared with SciPy."""
    prior, scan = tiny_prior(), tiny_scan(photons=1e4)
    assert prior.value_range is not None and scan.units is not None
    head = tiny_htransform(prior, reference="none")
    y = scan.simulate(tiny_slices(2).double())
    likelihood = scan.likelihood(y, prior.value_range)
    paths = draw_paths(
        head,
        prior,
        likelihood,
        Condition(),
        control_times(prior.schedule, 3),
        guidance=AdjointGuidance(),
        normal=normal(0),
    )
    rate = 1e4 * (-scan.operator(scan.units.after(prior.value_range)(paths.x0))).exp()
    counts = (1e4 * (-y).exp()).round()
    exact = poisson.logpmf(counts.numpy(), rate.numpy()).sum((1, 2, 3))
    torch.testing.assert_close(paths.reward, torch.from_numpy(exact), rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(path_costs(head, paths), paths.log_ratio - torch.from_numpy(exact), rtol=1e-6, atol=1e-2)


def _train_linear(objective: str, count: int, iterations: int, paths: int) -> tuple[LinearHead, GaussianChain]:
    """Train an affine head from zero on the one measurement."""
    chain = GaussianChain(GAUSSIAN, SCHEDULE, control_times(SCHEDULE, count))
    head = LinearHead(chain)
    level = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.Adam([{"params": head.parameters()}, {"params": [level]}])
    for step in range(iterations):
        rate = RATE * (1 - step / iterations)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, 30 * rate
        costs = path_costs(head, walk(head, chain.times, paths, seed=step))
        if step == 0:
            level.data.fill_(-float(costs.detach().mean()))
        loss = log_variance(costs, paths) if objective == "log-variance" else trajectory_balance(costs, level, paths)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
    if objective == "trajectory-balance":
        # The level settles at -E_Q[C], below ln Z by the divergence that the fixed kernels leave (about 0.4 here).
        assert abs(float(level.detach()) - float(chain.log_evidence(CLEAN))) < 1.5
    return head, chain


@pytest.mark.parametrize("objective", ["log-variance", "trajectory-balance"])
def test_training_from_one_measurement_meets_the_posterior(objective: str) -> None:
    """A head of one matrix a step, 16 steps, against the posterior of the chain in closed form.

    400 draws give an error of the mean of 0.05 posterior spreads and of the covariance of 0.14 (relative); the fixed
    width of the kernels leaves 0.2 of the covariance at 16 steps.
    """
    head, chain = _train_linear(objective, 16, 300, 64)
    posterior = chain.prior().posterior(MATRIX, SIGMA, Y)
    paths = walk(head, chain.times, 400, seed=999)
    draws = paths.x0.flatten(1)
    assert (draws.mean(0) - posterior.mean).norm() / posterior.cov.trace().sqrt() < 0.15
    assert torch.linalg.matrix_norm(torch.cov(draws.T) - posterior.cov) / torch.linalg.matrix_norm(posterior.cov) < 0.45
    assert path_costs(head, paths).var() < 3.0
    untrained = path_costs(fresh := LinearHead(chain), walk(fresh, chain.times, 400, seed=999))
    assert untrained.var() > 100
    assert (chain.prior().mean - posterior.mean).norm() / posterior.cov.trace().sqrt() > 1


def _small_head() -> HTransformConfig:
    return HTransformConfig(
        reference="none", guidance="score",
        network=UNetConfig(patch=1, channels=(32,), attention=(True,), norm_groups=1, head_channels=16),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["log-variance", "trajectory-balance"])
def test_the_network_meets_the_posterior_of_one_measurement(objective: str, tmp_path: Path) -> None:
    """The real head by ``finetune_online``, against the posterior of the chain."""
    control = ControlConfig(objective=objective, steps=16, paths=32)  # type: ignore[arg-type]
    training = TrainingConfig(steps=250, batch_size=1, learning_rate=5e-3, warmup=10, ema_decay=0.97)
    likelihood = Likelihood(LIKELIHOOD.measurement, LIKELIHOOD.y.float(), LIKELIHOOD.to_physical)
    settings = ControlTraining(config=_small_head(), control=control, training=training)
    head = finetune_online(PRIOR, likelihood, settings, folder=tmp_path)
    count = 1000
    paths = draw_paths(
        head, PRIOR, likelihood.repeat(count), Condition(), control_times(SCHEDULE, 16), guidance=ScoreGuidance(),
        normal=normal(7),
    )  # fmt: skip
    chain = GaussianChain(GAUSSIAN, SCHEDULE, control_times(SCHEDULE, 16))
    posterior, draws = chain.prior().posterior(MATRIX, SIGMA, Y), paths.x0.flatten(1).double()
    assert (draws.mean(0) - posterior.mean).norm() / posterior.cov.trace().sqrt() < 0.3
    assert torch.linalg.matrix_norm(torch.cov(draws.T) - posterior.cov) / torch.linalg.matrix_norm(posterior.cov) < 0.5
    assert path_costs(head, paths).var() < 8.0


def _ct_setup() -> tuple[Any, Any, HTransformConfig, TrainingConfig]:
    prior, scan = tiny_prior(), tiny_scan()
    config = HTransformConfig(network=NETWORK, reference="fbp", spread=0.3)
    return prior, scan, config, TrainingConfig(steps=6, batch_size=2, warmup=2, learning_rate=1e-3, seed=3)


@pytest.mark.parametrize("objective", ["log-variance", "trajectory-balance"])
def test_training_resumes_exactly(objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior, scan, config, training = _ct_setup()
    measured = StoredMeasurements(scan.likelihood(scan.simulate(tiny_slices(3)), prior.value_range))
    control = ControlConfig(objective=objective, steps=3, paths=2)  # type: ignore[arg-type]
    settings = ControlTraining(config=config, control=control, training=training)
    whole = train_control(measured, prior, tmp_path / "whole", settings, progress=False)
    broken = replace(settings, training=replace(training, checkpoint_minutes=1e-9))
    calls, take = 0, StoredMeasurements.likelihood

    def dying(self: StoredMeasurements, indices: Tensor) -> Likelihood:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return take(self, indices)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StoredMeasurements, "likelihood", dying)
        train_control(measured, prior, tmp_path / "broken", broken, progress=False)
    resumed = train_control(measured, prior, tmp_path / "broken", settings, progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    start = HTransform(config, prior.schedule)
    assert any(not torch.equal(value, start.state_dict()[name]) for name, value in whole.state_dict().items())


def test_simulated_measurements_are_the_same_at_every_call() -> None:
    prior, scan, _, _ = _ct_setup()
    hu = HounsfieldScale().to_hu(tiny_slices(4))

    class Source:
        pixel_mm = np.array([8.0, 8.5, 9.0, 9.5])

        def __len__(self) -> int:
            return 4

        def batch(self, indices: Tensor) -> Tensor:
            return hu[indices]

    unit = Measurement(tiny_scan(pixel_mm=1.0).operator, scan.noise, units=HounsfieldScale())
    measured = SimulatedMeasurements(SlicePairs(Source(), [unit], prior.value_range), seed=5)
    assert len(measured) == 4
    pair, single = measured.likelihood(torch.tensor([2, 0])), measured.likelihood(torch.tensor([0]))
    assert torch.equal(pair.y[1:], single.y)
    assert not torch.equal(pair.y[:1], single.y)
    x0 = torch.zeros(1, 1, 32, 32)
    torch.testing.assert_close(pair[1:].forward(x0), single.forward(x0))


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    prior, scan, config, training = _ct_setup()
    for bad in ({"objective": "magic"}, {"steps": 1}, {"paths": 1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ControlConfig(**bad)  # type: ignore[arg-type]
    likelihood = scan.likelihood(scan.simulate(tiny_slices(2)), prior.value_range)
    settings = ControlTraining(config=config, control=ControlConfig(steps=3, paths=2), training=training)
    with pytest.raises(ValueError, match="one measurement, got 2"):
        finetune_online(prior, likelihood, settings)
    other = tiny_htransform(prior, reference="none")
    with pytest.raises(ValueError, match="another configuration or prior"):
        finetune_online(prior, likelihood[:1], replace(settings, initial=other))
