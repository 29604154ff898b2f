"""Noise models against scipy.stats, Monte-Carlo moments and autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from deft_ct.operators.ct.faults import DeadDetectors, RingArtefact
from deft_ct.operators.noise import GaussianNoise, NoiseModel, NoNoise, PoissonNoise, standard_normal

MODELS = [
    NoNoise(),
    GaussianNoise(0.3),
    GaussianNoise(0.01, relative=True),
    PoissonNoise(1e3),
    PoissonNoise(1e3, electronic=8.0),
    PoissonNoise(1e3, post_log=False),
    PoissonNoise(1e3, electronic=8.0, post_log=False),
]
IDS = [repr(model) for model in MODELS]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def line_integrals(*shape: int, seed: int = 1) -> torch.Tensor:
    return 4 * torch.rand(shape, generator=rng(seed), dtype=torch.float64) + 0.1


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_sample_keeps_shape_and_dtype_and_is_a_function_of_the_seed(model: NoiseModel) -> None:
    for dtype in (torch.float32, torch.float64):
        clean = line_integrals(3, 1, 5, 7).to(dtype)
        y = model.sample(clean, rng(3))
        assert y.shape == clean.shape and y.dtype == dtype
        assert torch.equal(y, model.sample(clean, rng(3)))
        assert isinstance(model, NoNoise) or not torch.equal(y, model.sample(clean, rng(4)))


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_noise_of_a_sample_does_not_depend_on_the_batch(model: NoiseModel) -> None:
    clean = line_integrals(4, 1, 5, 7).float()
    together = model.sample(clean, [rng(seed) for seed in range(4)])
    apart = [model.sample(clean[i : i + 1], rng(i)) for i in range(4)]
    assert torch.equal(together, torch.cat(apart))


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_sample_leaves_the_global_random_state_and_its_input_alone(model: NoiseModel) -> None:
    clean = line_integrals(2, 1, 4, 4)
    before, copy = torch.random.get_rng_state(), clean.clone()
    model.sample(clean, rng())
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(clean, copy)


@pytest.mark.parametrize("model", MODELS[1:], ids=IDS[1:])
def test_moments_by_monte_carlo(model: NoiseModel) -> None:
    clean = line_integrals(1, 1, 2, 4) / 2  # few photons are lost, so that the delta method holds
    draws = 20_000
    y = model.sample(clean.expand(draws, -1, -1, -1), rng(5))
    variance = model.variance(clean)[0]
    torch.testing.assert_close(y.var(0), variance, rtol=0.06, atol=0)
    # First-order mean: the bias of the logarithm is at most half the variance.
    bound = 5 * (variance / draws).sqrt() + 0.6 * variance * isinstance(model, PoissonNoise)
    assert bool(((y.mean(0) - model.mean(clean)[0]).abs() <= bound).all())


def test_gaussian_likelihood_agrees_with_scipy() -> None:
    clean, y = line_integrals(3, 2, 4), line_integrals(3, 2, 4, seed=2)
    expected = scipy.stats.norm.logpdf(y.numpy(), clean.numpy(), 0.3).sum((1, 2))
    np.testing.assert_allclose(GaussianNoise(0.3).log_likelihood(clean, y), expected, rtol=1e-12)
    scale = 0.05 * np.abs(clean.numpy()).mean((1, 2), keepdims=True)
    expected = scipy.stats.norm.logpdf(y.numpy(), clean.numpy(), scale).sum((1, 2))
    np.testing.assert_allclose(GaussianNoise(0.05, relative=True).log_likelihood(clean, y), expected, rtol=1e-12)


@pytest.mark.parametrize("post_log", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_poisson_likelihood_agrees_with_scipy_also_at_zero_counts(post_log: bool, dtype: torch.dtype) -> None:
    model = PoissonNoise(200.0, post_log=post_log)
    clean = (2.5 * line_integrals(3, 1, 6, 7)).to(dtype)  # up to 10: many zero counts
    y = model.sample(clean, rng(7))
    counts = 200 * np.exp(-y.double().numpy()) if post_log else 200 * y.double().numpy()
    integer = np.where(counts < 0.5, 0, np.rint(counts))
    assert (integer == 0).any() and np.abs(counts - integer).max() < 0.11
    expected = scipy.stats.poisson.logpmf(integer, 200 * np.exp(-clean.double().numpy())).sum((1, 2, 3))
    np.testing.assert_allclose(model.log_likelihood(clean, y), expected, rtol=2e-5 if dtype is torch.float32 else 1e-10)


def test_zero_counts_become_the_floor() -> None:
    model = PoissonNoise(100.0, floor=0.1)
    y = model.sample(torch.full((1, 1, 3, 3), 50.0), rng())
    torch.testing.assert_close(y, torch.full_like(y, math.log(1000.0)))
    assert bool(torch.isfinite(model.weights(y)).all()) and bool(torch.isfinite(model.log_likelihood(y, y)).all())


def test_the_likelihood_of_rays_that_nothing_passes() -> None:
    """At 1000 mean free paths the expected count underflows, and its logarithm is known all the same."""
    counts, clean = 5.0, torch.full((1, 1), 1000.0, dtype=torch.float64)
    y = torch.full((1, 1), -math.log(counts / 1e4), dtype=torch.float64)
    expected = counts * (math.log(1e4) - 1000.0) - math.lgamma(counts + 1)
    np.testing.assert_allclose(PoissonNoise(photons=1e4).log_likelihood(clean, y), [expected], rtol=1e-12)
    with_electronic = PoissonNoise(photons=1e4, electronic=1.0).log_likelihood(torch.zeros(1, 1), torch.zeros(1, 1))
    np.testing.assert_allclose(with_electronic, [scipy.stats.poisson.logpmf(10_001, 10_001)], rtol=1e-4)


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_score_is_the_gradient_of_the_log_likelihood(model: NoiseModel) -> None:
    clean = line_integrals(2, 1, 3, 4)
    y = model.sample(clean, rng(2))
    point = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_likelihood(point, y).sum(), point)
    torch.testing.assert_close(model.score(clean, y), gradient, rtol=1e-9, atol=1e-9)
    assert model.log_likelihood(clean, y).shape == (2,)


@pytest.mark.parametrize("model", MODELS[1:], ids=IDS[1:])
def test_score_has_zero_mean_under_the_model(model: NoiseModel) -> None:
    clean = line_integrals(1, 1, 2, 3) / 2
    draws = 20_000
    many = clean.expand(draws, -1, -1, -1)
    score = model.score(many, model.sample(many, rng(9)))
    assert bool((score.mean(0).abs() <= 5 * score.std(0) / math.sqrt(draws)).all())


def test_poisson_weights_are_the_counts_of_post_log_data() -> None:
    y = line_integrals(2, 1, 3, 3)
    torch.testing.assert_close(PoissonNoise(1e4).weights(y), 1e4 * (-y).exp())
    counts = 1e4 * (-y).exp()
    torch.testing.assert_close(PoissonNoise(1e4, electronic=5.0).weights(y), counts**2 / (counts + 25))


@pytest.mark.parametrize("model", MODELS[1:], ids=IDS[1:])
def test_weights_are_the_inverse_variance(model: NoiseModel) -> None:
    clean = line_integrals(2, 1, 3, 3)
    torch.testing.assert_close(model.weights(model.mean(clean)), 1 / model.variance(clean))


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_dictionary_round_trip(model: NoiseModel) -> None:
    assert NoiseModel.from_dict(model.to_dict()) == model


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="sigma must be a positive finite number, got 0; use NoNoise"):
        GaussianNoise(0)
    for photons in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="photons must be a positive"):
            PoissonNoise(photons)
    with pytest.raises(ValueError, match="electronic"):
        PoissonNoise(electronic=-1)
    with pytest.raises(ValueError, match="below one count"):
        PoissonNoise(floor=1.0)
    with pytest.raises(ValueError, match="noise type must be one of"):
        NoiseModel.from_dict({"type": "Laplace"})
    with pytest.raises(ValueError, match="cannot build GaussianNoise"):
        NoiseModel.from_dict({"type": "GaussianNoise", "std": 1.0})


def test_bad_input_is_refused() -> None:
    clean = torch.rand(2, 1, 3, 3, generator=rng())
    with pytest.raises(ValueError, match="each of the 2 samples, got 3"):
        GaussianNoise(1.0).sample(clean, [rng(), rng(), rng()])
    with pytest.raises(TypeError, match="generator must be"):
        GaussianNoise(1.0).sample(clean, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="floating-point"):
        PoissonNoise().sample(clean.long(), rng())
    with pytest.raises(ValueError, match="NaN or infinite"):
        PoissonNoise().sample(clean.log().log(), rng())
    with pytest.raises(ValueError, match="one shape"):
        GaussianNoise(1.0).score(clean, clean[:1])
    with pytest.raises(ValueError, match="batch axis"):
        GaussianNoise(1.0).sample(clean.flatten(), rng())


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_one_axis_beside_the_batch_is_enough(model: NoiseModel) -> None:
    """A list of readings has the noise of the same readings in an image."""
    clean = line_integrals(3, 1, 4, 5)
    y = model.sample(clean, [rng(seed) for seed in range(3)])
    assert torch.equal(model.sample(clean.flatten(1), [rng(seed) for seed in range(3)]), y.flatten(1))
    torch.testing.assert_close(model.log_likelihood(clean.flatten(1), y.flatten(1)), model.log_likelihood(clean, y))
    torch.testing.assert_close(model.score(clean.flatten(1), y.flatten(1)), model.score(clean, y).flatten(1))
    with pytest.raises(ValueError, match="batch axis"):
        model.sample(clean[:, 0, 0, 0], rng())


def test_rings_are_constant_over_views() -> None:
    y = line_integrals(2, 1, 6, 400)
    error = RingArtefact(amplitude=0.05, fraction=0.25)(y, [rng(0), rng(1)]) - y
    torch.testing.assert_close(error, error[:, :, :1].expand_as(error), rtol=0, atol=1e-6)
    faulty = error[:, 0, 0] != 0
    assert 0.15 < faulty.double().mean() < 0.35
    assert error[:, 0, 0][faulty].std() == pytest.approx(0.05, rel=0.2)
    assert not torch.equal(faulty[0], faulty[1])


def test_dead_detectors_read_one_value() -> None:
    y = line_integrals(2, 1, 6, 10, 20)
    out = DeadDetectors(fraction=0.2, value=11.5, detector_ndim=2)(y, rng(0))
    dead = out == 11.5
    assert torch.equal(dead, dead[:, :, :1].expand_as(dead)) and 0.1 < dead.double().mean() < 0.3
    assert torch.equal(out[~dead], y[~dead])


@pytest.mark.parametrize("fault", [RingArtefact, DeadDetectors])
def test_bad_faults_are_refused(fault: type[RingArtefact | DeadDetectors]) -> None:
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\]"):
        fault(fraction=1.5)
    with pytest.raises(ValueError, match="detector_ndim"):
        fault(detector_ndim=3)


def test_no_noise_has_no_variance_and_equal_weights() -> None:
    clean = torch.rand(2, 3, dtype=torch.float64)
    assert torch.equal(NoNoise().variance(clean), torch.zeros_like(clean))
    assert torch.equal(NoNoise().weights(clean), torch.ones_like(clean))


def test_faults_are_made_by_keywords() -> None:
    """Two numbers in a row could be either way round."""
    for kind in (DeadDetectors, RingArtefact):
        with pytest.raises(TypeError, match="positional"):
            kind(0.1, 1)


def test_values_of_faults_must_be_finite() -> None:
    for wrong in (math.nan, math.inf, -0.1):
        with pytest.raises(ValueError, match="RingArtefact: amplitude must be a finite number >= 0"):
            RingArtefact(amplitude=wrong)
    for wrong in (math.nan, -math.inf):
        with pytest.raises(ValueError, match="DeadDetectors: value must be finite"):
            DeadDetectors(value=wrong)
    y = torch.rand(1, 1, 3, 4)
    assert torch.equal(RingArtefact(amplitude=0.0, fraction=1.0)(y, rng(0)), y)
    assert torch.equal(DeadDetectors(fraction=0.0)(y, rng(0)), y)
    assert bool((DeadDetectors(fraction=1.0, value=-2.0)(y, rng(0)) == -2.0).all())


def test_gaussian_noise_is_added_to_the_data() -> None:
    """The numbers of the generator, times the standard deviation: so runs can be repeated elsewhere."""
    clean = torch.rand(2, 1, 3, 4, dtype=torch.float64)
    found = GaussianNoise(0.3).sample(clean, [rng(3), rng(4)])
    for i in range(2):
        torch.testing.assert_close(found[i : i + 1], clean[i : i + 1] + 0.3 * standard_normal(clean[:1], [rng(3 + i)]))


def test_the_floor_lies_between_nothing_and_a_count() -> None:
    for wrong in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="floor"):
            PoissonNoise(floor=wrong)
    assert PoissonNoise(floor=0.999).floor == 0.999
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="photons"):
            PoissonNoise(photons=wrong)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="electronic"):
            PoissonNoise(electronic=wrong)


@pytest.mark.parametrize("post_log", [True, False])
@pytest.mark.parametrize("electronic", [0.0, 30.0])
def test_counts_are_drawn_in_one_order(post_log: bool, electronic: float) -> None:
    """The photons of a sample first, then the read-out noise, from its own generator, in double precision."""
    model = PoissonNoise(photons=200.0, electronic=electronic, post_log=post_log, floor=0.5)
    clean = 3 * torch.rand(2, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    found = model.sample(clean, [rng(3), rng(4)])
    for i in range(2):
        source = rng(3 + i)
        counts = torch.poisson(200 * torch.exp(-clean[i].double()), generator=source)
        if electronic:
            counts = counts + electronic * torch.randn(counts.shape, generator=source, dtype=torch.float64)
        expected = -torch.log(counts.clamp_min(0.5) / 200) if post_log else counts / 200
        torch.testing.assert_close(found[i], expected.float())
    assert found.dtype == torch.float32 and torch.equal(model.mean(clean), clean if post_log else torch.exp(-clean))


def test_a_line_integral_may_be_a_little_negative() -> None:
    model = PoissonNoise()
    model.sample(torch.full((1, 2), -0.5), rng(0))
    with pytest.raises(ValueError, match=r"a line integral of -0\.501 would make light"):
        model.sample(torch.full((1, 2), -0.501), rng(0))
