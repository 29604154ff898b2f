"""What all solvers promise alike: checks of the input, batches, dtypes, the methods around them."""

from __future__ import annotations

import math

import pytest
import torch

from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.classical import StoppingRule, cgls, sirt, tikhonov, total_variation
from deft_ct.methods.registry import load_reconstructor, method_class
from deft_ct.operators.ct import fbp
from deft_ct.operators.noise import NoNoise, PoissonNoise


def _tikhonov(*args, **kwargs):
    return tikhonov(*args, strength=10.0, **kwargs)


def _tv(*args, **kwargs):
    return total_variation(*args, **{"strength": 10.0, **kwargs})


SOLVERS = [pytest.param(cgls, id="cgls"), pytest.param(_tikhonov, id="tikhonov"), pytest.param(sirt, id="sirt"),
           pytest.param(_tv, id="tv")]  # fmt: skip
solvers = pytest.mark.parametrize("solver", SOLVERS)


@solvers
def test_rejects_nan(case, solver):
    y = case.y.clone()
    y[0, 0, 1, 2] = math.nan
    with pytest.raises(ValueError, match="y holds 1 NaN"):
        solver(y, case.operator)


@solvers
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": torch.tensor(-1.0)}, "weights are inverse variances"),
        ({"weights": torch.tensor(math.inf)}, "weights holds"),
        ({"weights": torch.ones(3)}, "weights must broadcast"),
        ({"x0": torch.zeros(2, 1, 5, 5)}, "x0 must have shape"),
    ],
)
def test_rejects_bad_arguments(case, solver, change, message):
    with pytest.raises(ValueError, match=message):
        solver(case.y, case.operator, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"tolerance": -1e-3}, "tolerance must be a finite number"),
        ({"tolerance": math.nan}, "tolerance must be a finite number"),
    ],
)
def test_rejects_bad_stopping_rules(change, message):
    with pytest.raises(ValueError, match=message):
        StoppingRule(**change)


@solvers
def test_rejects_a_wrong_shape_dtype_or_operator(case, solver):
    with pytest.raises(ValueError, match="trailing shape"):
        solver(case.y[..., :-1], case.operator)
    with pytest.raises(TypeError, match="floating-point"):
        solver(case.y.long(), case.operator)
    with pytest.raises(TypeError, match="needs a LinearOperator"):
        solver(case.y, torch.nn.Identity())


@solvers
def test_warns_of_an_adjoint_that_is_not_exact(dense, solver):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(30, 16, generator=generator)
    with pytest.warns(UserWarning, match="matched is False"):
        solver(
            torch.rand(30, generator=generator),
            dense(matrix, (4, 4), matched=False),
            stopping=StoppingRule(iterations=2),
        )


@solvers
def test_a_batch_is_its_samples_one_by_one(case32, solver):
    y = torch.cat([case32.y, 3 * case32.y + 1])
    w = torch.cat([case32.weights] * 2)
    together, info = solver(y, case32.operator, weights=w, stopping=StoppingRule(iterations=25, tolerance=2e-2))
    assert together.shape == (4, 1, 32, 32) and info.iterations.shape == (4, 1)
    for i in range(4):
        alone, one = solver(
            y[i, 0], case32.operator, weights=w[i, 0], stopping=StoppingRule(iterations=25, tolerance=2e-2)
        )
        torch.testing.assert_close(alone, together[i, 0], rtol=0, atol=1e-6)
        assert int(one.iterations) == int(info.iterations[i, 0])


@solvers
def test_keeps_the_dtype_and_carries_no_graph(case, solver):
    for dtype in (torch.float32, torch.float64):
        x, _ = solver(case.y.to(dtype).clone().requires_grad_(), case.operator, stopping=StoppingRule(iterations=2))
        assert x.dtype == dtype and not x.requires_grad


@solvers
def test_zero_data_give_a_zero_image(case, solver):
    x, info = solver(torch.zeros_like(case.y), case.operator, stopping=StoppingRule(iterations=20))
    assert torch.equal(x, torch.zeros_like(x)) and bool(info.converged.all())


def _error(x, case):
    return float((x - case.truth).norm() / case.truth.norm())


@pytest.mark.parametrize(
    ("name", "options", "limit"),
    [
        ("fbp", {"filter": "ram-lak"}, 0.35),
        ("sirt", {"iterations": 50}, 0.25),
        ("cgls", {"iterations": 8}, 0.3),
        ("tikhonov", {"strength": 500.0}, 0.3),
        ("tv", {"strength": 20.0}, 0.12),
    ],
)
def test_methods_by_name(case, name, options, limit):
    measurement = Measurement(case.operator, PoissonNoise(photons=1e3))
    y = measurement.simulate(case.truth, seed=1)
    method = load_reconstructor(name, **options)
    result = method.reconstruct(y, measurement)
    assert result.mean.shape == case.truth.shape and result.samples is None and result.std is None
    assert result.provenance["method"] == name
    assert _error(result.mean, case) < limit
    alone = method.reconstruct(y[1:], measurement)
    torch.testing.assert_close(alone.mean, result.mean[1:], rtol=0, atol=1e-9)
    if name == "fbp":
        assert torch.equal(result.mean, fbp(y, case.operator.geometry, "ram-lak"))
    else:
        assert len(result.provenance["solver"]["iterations"]) == 2


@pytest.mark.parametrize(("name", "limit"), [("tv", 0.02), ("tikhonov", 0.25)])
def test_the_default_penalty_does_not_flatten_noise_free_data(case, name, limit):
    clean = case.operator(case.truth)
    results = [
        load_reconstructor(name).reconstruct(clean, Measurement(case.operator, noise)).mean
        for noise in (NoNoise(), PoissonNoise(photons=1e6))
    ]
    assert torch.equal(*results)
    assert _error(results[0], case) < limit


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fbp", {"filter": "box"}), ("fbp", {"cutoff": 0.0}), ("sirt", {"iterations": 0}),
        ("cgls", {"tolerance": -1.0}),
        ("cgls", {"discrepancy": -1.0}), ("tikhonov", {"strength": -1.0}), ("tikhonov", {"penalty": "l0"}),
        ("tv", {"strength": math.nan}), ("tv", {"iterations": 0}),
    ],
)  # fmt: skip
def test_configurations_are_checked(name, options):
    with pytest.raises(ValueError):
        method_class(name).config_type(**options)
