"""Guidance of the data themselves, and guidance that depends on the noise level, against closed forms."""

from __future__ import annotations

import pytest
import torch
from gaussian import Gaussian, MatrixOperator, gaussian_prior
from tiny import NETWORK, SIZE, tiny_htransform, tiny_prior, tiny_scan, tiny_slices

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.pairs import simulate_unit_pixel
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import Condition, HTransform, HTransformConfig, load_htransform, save_htransform
from deft_ct.methods.deft.control import ControlConfig
from deft_ct.methods.deft.guidance import DataGuidance, belief_spread, guidance_for, proximal_correction
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.refinement import RefinementConfig
from deft_ct.methods.deft.train import denoising_loss
from deft_ct.methods.deft.train_control import ControlTraining, StoredMeasurements, train_control
from deft_ct.networks import UNetConfig
from deft_ct.operators import HDR
from deft_ct.operators.noise import GaussianNoise
from deft_ct.training import TrainingConfig

SIDE, ROWS, SIGMA, WIDTH = 4, 6, 0.2, 0.5


def _world():
    """Independent pixels of spread WIDTH, a random matrix, white noise: C is a multiple of the identity."""
    mean = torch.linspace(-0.5, 0.5, SIDE**2).double()
    gaussian = Gaussian(mean, WIDTH**2 * torch.eye(SIDE**2).double())
    matrix = torch.randn(ROWS, SIDE**2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) / 4
    return gaussian, matrix, Measurement(MatrixOperator(matrix, SIDE), GaussianNoise(SIGMA))


def _head(prior, **config):
    return HTransform(HTransformConfig(network=UNetConfig(patch=1, channels=(32,), attention=(False,)), **config),
                      prior.schedule)  # fmt: skip


def _relative_error(t, steps, spread=WIDTH):
    """Of ``x0h + guidance`` from the exact conditional estimate ``E[x0 | x_t, y]``."""
    gaussian, matrix, measurement = _world()
    prior = gaussian_prior(gaussian, SIDE)
    x0 = gaussian.draw(3, seed=t).reshape(-1, 1, SIDE, SIDE)
    likelihood = measurement.likelihood(measurement.simulate(x0, seed=t))
    times = torch.full((3,), t)
    x_t = prior.schedule.add_noise(
        x0, torch.randn(x0.shape, generator=torch.Generator().manual_seed(t)).double(), times
    )
    a = prior.schedule.alpha_bar(times)[:1].double()
    exact = []
    for i, data in enumerate(likelihood.y):
        posterior = gaussian.posterior(matrix, SIGMA, data.flatten())
        flat = x_t[i].flatten()[None]
        exact.append((flat - (1 - a).sqrt() * posterior.eps(flat, a)) / a.sqrt())
    tweedie, _ = prior.predict(x_t, times)
    sigma = ((1 - a) / a).sqrt().float().expand(3)
    found = guidance_for("cg", spread=spread, steps=steps).of_estimate(likelihood, tweedie, sigma)
    correction = torch.cat(exact).reshape(x0.shape) - tweedie
    return float((found - correction).norm() / correction.norm())


@pytest.mark.parametrize("t", [20, 200, 600, 990])
def test_conjugate_gradients_converge_to_the_exact_answer(t):
    assert _relative_error(t, 30) < 1e-4
    assert _relative_error(t, 30) < _relative_error(t, 2) < _relative_error(t, 1) < 0.9


def test_the_spread_is_what_makes_the_answer_exact():
    assert _relative_error(600, 30, spread=WIDTH / 4) > 0.1


def test_the_spread_lies_below_the_noise_and_below_its_limit():
    sigma = torch.tensor([1e-4, 0.1, 1.0, 1e4])
    found = belief_spread(sigma, 0.2)
    assert bool((found < sigma).all()) and bool((found < 0.2 + 1e-6).all())
    torch.testing.assert_close(found[[0, 3]], torch.tensor([1e-4, 0.2]), rtol=1e-5, atol=0)
    torch.testing.assert_close(belief_spread(sigma, 1.0), (sigma**2 / (1 + sigma**2)).sqrt())  # PiGDM


def test_a_scan_is_solved_for_white_noise_of_the_mean_variance():
    """Against the dense normal equations of CT; the preconditioner changes the way there, not the end."""
    scan = tiny_scan(photons=3e3)
    x0 = PriorRange().to_prior(HounsfieldScale().to_hu(tiny_slices(1))).double()
    likelihood = scan.likelihood(scan.simulate(tiny_slices(1), seed=1).double(), PriorRange())
    basis = torch.eye(SIZE**2).double().reshape(-1, 1, SIZE, SIZE)
    matrix = likelihood.to_physical.scale * scan.operator(basis).flatten(1).T
    variance = likelihood.weights.reciprocal().mean()
    normal = matrix.T @ matrix / variance + torch.eye(SIZE**2).double() / 0.1**2
    rhs = matrix.T @ likelihood.residual(0.8 * x0).flatten()[:, None] / variance
    expected = torch.linalg.solve(normal, rhs).reshape(x0.shape)

    def error(iterations):
        found = proximal_correction(likelihood, 0.8 * x0, torch.tensor([0.1]).double(), iterations=iterations)
        return float((found - expected).norm() / expected.norm())

    assert error(200) < 0.005  # CG stops at a residual of 1e-4
    assert error(5) < 0.3


def test_the_guidance_of_the_data_is_their_reconstruction_whatever_the_image(monkeypatch):
    scan = tiny_scan()
    likelihood = scan.likelihood(scan.simulate(tiny_slices(2)), PriorRange())
    fbp = PriorRange().to_prior(HounsfieldScale().to_hu(scan.operator.pseudo_inverse(likelihood.y)))
    first = DataGuidance().of_initial(likelihood, torch.zeros_like(fbp), 1.0)
    torch.testing.assert_close(first, fbp, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(type(scan.operator), "pseudo_inverse", None)  # computed once for a measurement
    torch.testing.assert_close(
        DataGuidance().of_initial(likelihood[:], torch.ones_like(fbp), 1.0), first, rtol=0, atol=0
    )


def test_a_split_separates_what_the_data_say_from_what_they_do_not():
    gaussian, matrix, measurement = _world()
    prior = gaussian_prior(gaussian, SIDE)
    reference = gaussian.mean.reshape(1, 1, SIDE, SIDE)
    likelihood = measurement.likelihood(measurement.simulate(gaussian.draw(1, 0).reshape(1, 1, SIDE, SIDE)))
    _, _, rows = torch.linalg.svd(matrix)
    inside, outside = (rows[k].reshape(1, 1, SIDE, SIDE) for k in (0, ROWS))  # row space, null space
    head = _head(prior, guidance="split", guidance_spread=100.0, guidance_steps=40)
    times, zero = torch.tensor([300]), torch.zeros(1, 1, SIDE, SIDE).double()
    guidance = [head.guidance_at(likelihood, reference + add, times) for add in (zero, inside, outside)]
    torch.testing.assert_close(guidance[1], guidance[0] - inside, rtol=1e-3, atol=1e-3)  # taken back
    torch.testing.assert_close(guidance[2], guidance[0], rtol=1e-4, atol=1e-4)  # not seen
    remainder = head.guidance.of_initial(likelihood, reference, head.config.spread)
    seen = []
    head.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    condition = Condition(initial=reference.float(), residual=remainder.float())
    for add, g in zip((inside, outside), guidance[1:], strict=True):
        x0 = (reference + add).float()
        head(x0, times, x0, x0, g.float(), condition)
    left, kept = (inputs[:, -1:] for inputs in seen)
    assert seen[0].shape[1] == head.config.features == 6
    assert left.norm() < 1e-2 * kept.norm()
    assert torch.nn.functional.cosine_similarity(kept.flatten(), outside.flatten().float(), dim=0) > 0.999


@pytest.mark.parametrize("kind", ["data", "cg", "split"])
def test_heads_train_and_sample_with_every_kind(kind, tmp_path):
    prior, scan = tiny_prior(), tiny_scan()
    head = tiny_htransform(prior, guidance=kind, guidance_steps=2)
    pairs = simulate_unit_pixel(
        HounsfieldScale().to_hu(tiny_slices(2)), torch.full((2,), 8.0), tiny_scan(pixel_mm=1.0), PriorRange(), seed=0
    )
    times = torch.tensor([40, 900])
    loss = denoising_loss(head.train(), head, prior, pairs, times, torch.randn(pairs.x0.shape))
    loss.backward()
    assert torch.isfinite(loss) and head.network.conv_in.weight.grad.abs().sum() > 0
    save_htransform(head, tmp_path / "head", dtype=torch.float32)
    kept = load_htransform(tmp_path / "head")
    assert kept.config.to_dict() == head.config.to_dict()
    y = scan.simulate(tiny_slices(2))
    deft = DEFT(prior, kept, DEFTConfig(estimate="samples", steps=4))
    both = deft.reconstruct(y, scan, num_samples=2, image_ids=["a", "b"]).samples
    alone = deft.reconstruct(y[1:], scan, num_samples=2, image_ids=["b"]).samples
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-6)


def test_the_settings_of_new_kinds_leave_older_heads_as_they_were():
    assert not {"guidance_spread", "guidance_steps"} & HTransformConfig(guidance="fbp").to_dict().keys()
    config = HTransformConfig(guidance="cg", guidance_steps=3)
    assert config.to_dict()["guidance_steps"] == 3
    assert HTransformConfig.from_dict(config.to_dict()) == config


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown guidance 'rays'; known: score, adjoint, fbp, data, cg, split"):
        HTransformConfig(guidance="rays")
    with pytest.raises(ValueError, match="'split' compares with a reference"):
        HTransformConfig(guidance="split", reference="none")
    with pytest.raises(ValueError, match="must be positive"):
        HTransformConfig(guidance="cg", guidance_steps=0)
    scan, prior = tiny_scan(), tiny_prior()
    likelihood = scan.likelihood(scan.simulate(tiny_slices(1)), PriorRange())
    with pytest.raises(ValueError, match=r"sees no noise level: take guidance score, adjoint, fbp or data, got cg"):
        RefinementConfig(guidance="cg")
    config = HTransformConfig(guidance="cg", network=NETWORK)
    bright = Measurement(HDR((1, 8, 8)), GaussianNoise(0.1))
    with pytest.raises(ValueError, match="need a linear operator, got HDR"):
        zero = torch.zeros(1, 1, 8, 8)
        proximal_correction(bright.likelihood(zero), zero, torch.ones(1), iterations=1)
    with pytest.raises(ValueError, match="stochastic control takes guidance score, adjoint, fbp or data, got cg"):
        train_control(
            StoredMeasurements(likelihood), prior, tmp_path,
            ControlTraining(config=config, control=ControlConfig(), training=TrainingConfig(steps=1)),
        )  # fmt: skip
