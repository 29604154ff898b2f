"""One head for any scan: features of the scan, and going on from a head without them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny import NETWORK, SIZE, tiny_htransform, tiny_prior, tiny_scan, tiny_slices

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.pairs import SlicePairs, simulate_unit_pixel
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import (
    Condition,
    HTransform,
    HTransformConfig,
    condition_for,
    load_htransform,
    save_htransform,
)
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES, scan_features
from deft_ct.methods.deft.guidance import guidance_for
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.train import HTransformTraining, denoising_loss, start_from_htransform, train_htransform
from deft_ct.operators import GaussianBlur
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.noise import GaussianNoise, NoNoise, PoissonNoise
from deft_ct.training import TrainingConfig


def _likelihood(geometry, noise, count=2):
    scan = Measurement(RayTransform(geometry), noise, units=HounsfieldScale())
    return scan.likelihood(scan.simulate(tiny_slices(count)), PriorRange())


def _parallel(views, degrees=180.0):
    return ParallelGeometry(
        image_shape=(SIZE, SIZE), pixel_mm=8.0, views=views, angular_range=math.radians(degrees),
        detectors=48, detector_mm=8.0,
    )  # fmt: skip


def _features(geometry, noise):
    return scan_features(_likelihood(geometry, noise))[0]


def test_features_are_zero_for_the_usual_scan_and_say_what_differs():
    torch.testing.assert_close(_features(_parallel(60), PoissonNoise(photons=1e5)), torch.zeros(4), rtol=0, atol=1e-5)
    few = _features(_parallel(15), PoissonNoise(photons=1e4))
    torch.testing.assert_close(few, torch.tensor([-2.0, 0.0, -1.0, 0.0]), rtol=0, atol=1e-5)
    limited = _features(_parallel(60, 120.0), PoissonNoise(photons=1e6))
    torch.testing.assert_close(limited, torch.tensor([0.0, 2 / 3, 1.0, 0.0]), rtol=0, atol=1e-5)
    fan = FanGeometry.for_image((SIZE, SIZE), 8.0, 60)
    found = _features(fan, PoissonNoise(photons=1e5))
    assert found[3] == pytest.approx(math.atan(fan.detector_positions.max() / fan.source_to_detector_mm))
    assert found[:3].abs().max() < 1e-5
    short = fan.replace(angular_range=math.radians(240))  # nothing is missing: the features of a full turn
    torch.testing.assert_close(_features(short, PoissonNoise(photons=1e5)), found, rtol=0, atol=1e-5)
    limited = _features(fan.replace(angular_range=math.radians(90)), PoissonNoise(photons=1e5))
    assert limited[1] == pytest.approx(1.0)


def test_views_in_any_order_cover_the_same_range():
    angles = torch.linspace(0, math.radians(100), 31)[:-1].double()
    shuffled = angles[torch.randperm(30, generator=torch.Generator().manual_seed(0))] + math.pi
    base = _parallel(60).replace(views=None, angles=angles.tolist())
    turned = base.replace(angles=shuffled.tolist())
    noise = PoissonNoise()
    torch.testing.assert_close(_features(base, noise), _features(turned, noise), rtol=0, atol=1e-5)
    assert _features(base, noise)[1] == pytest.approx(2 * (1 - 100 / 180), abs=1e-5)


def test_every_noise_model_has_a_level():
    likelihood = _likelihood(_parallel(12), PoissonNoise(photons=3e4))
    white = likelihood.weights.log().mean().mul(-0.5).exp().item()  # white noise of the same geometric mean
    found = _features(_parallel(12), GaussianNoise(white))[2]
    assert found == pytest.approx(math.log10(3e4 / 1e5), abs=0.1)
    assert _features(_parallel(12), NoNoise())[2] == pytest.approx(1.0)
    assert _features(_parallel(12), GaussianNoise(1e-9))[2] == 2.0


def test_only_planar_scans_have_features():
    blur = Measurement(GaussianBlur((1, 32, 32), 5, 1.0, boundary="circular"), GaussianNoise(0.1))
    likelihood = blur.likelihood(blur.simulate(torch.zeros(1, 1, 32, 32)))
    with pytest.raises(ValueError, match="has no features"):
        condition_for(likelihood, tiny_htransform(tiny_prior(), scan_features=True, reference="none"))


@pytest.mark.parametrize("reference", ["none", "fbp"])
def test_a_head_continued_with_scan_features_starts_where_it_was(reference):
    prior = tiny_prior()
    network = replace(NETWORK, norm_groups=16)  # a group of one channel takes away what the embedding adds
    old = tiny_htransform(prior, reference=reference, network=network)
    config = HTransformConfig(network=network, reference=reference, scan_features=True)
    new = HTransform(config, prior.schedule, prior_hash="another prior")
    found = start_from_htransform(new, old)
    assert [part for part in found if "another prior" in part]
    assert [part for part in found if "no scan features" in part]
    scan = tiny_scan(views=9, photons=2e4)
    likelihood = scan.likelihood(scan.simulate(tiny_slices(2)), PriorRange())
    x, t = torch.randn(2, 1, SIZE, SIZE), torch.tensor([30.0, 800.0])
    x0, eps = prior.predict(x, t)
    guidance = guidance_for("fbp").of_initial(likelihood, x0, 1.0)
    expected = old(x, t, x0, eps, guidance, condition_for(likelihood, old))
    with torch.no_grad():
        same = new(x, t, x0, eps, guidance, condition_for(likelihood, new))
        torch.testing.assert_close(same, expected)
        new.scan_embedding[-1].weight.normal_(0, 5.0)
        changed = new(x, t, x0, eps, guidance, condition_for(likelihood, new))
    assert not torch.allclose(changed[0], expected[0], rtol=1e-5, atol=1e-5)


def test_a_head_cannot_go_on_with_another_meaning_of_its_inputs():
    prior = tiny_prior()
    old = tiny_htransform(prior, reference="fbp")
    for change in ({"guidance": "adjoint"}, {"guidance_scale": 0.2}, {"reference": "none"}):
        config = HTransformConfig(**{"network": NETWORK, "reference": "fbp", **change})
        with pytest.raises(ValueError, match=f"has other {next(iter(change))}"):
            start_from_htransform(HTransform(config, prior.schedule), old)
    told = tiny_htransform(prior, reference="fbp", scan_features=True)
    with pytest.raises(ValueError, match="has other scan_features"):
        start_from_htransform(HTransform(old.config, prior.schedule), told)


def test_the_spread_follows_the_scan():
    prior = tiny_prior()
    head = tiny_htransform(prior, reference="fbp", scan_features=True, spread_slopes=SPREAD_SLOPES)
    like = torch.zeros(2, 1, 1, 1)
    scan = torch.tensor([[0.0, 0, 0, 0], [-2.0, 2 / 3, -1, 0]])
    spread = head.spread(Condition(features=scan), like).flatten()
    assert spread[0] == pytest.approx(head.config.spread)
    assert spread[1] == pytest.approx(head.config.spread * math.exp(0.3 * 2 + 1.0 * 2 / 3 + 0.1))
    with pytest.raises(ValueError, match="needs the scan features"):
        head.spread(Condition(), like)
    with pytest.raises(ValueError, match="spread_slopes needs scan_features=True"):
        HTransformConfig(spread_slopes=SPREAD_SLOPES)


def test_conditions_are_repeated_and_cut_as_a_whole():
    values = torch.arange(6.0).reshape(3, 2)
    image = torch.arange(3.0).reshape(3, 1, 1, 1)
    condition = Condition(initial=image, residual=-image, features=values)
    twice = condition.repeat(2)
    assert twice.features.tolist() == values.repeat_interleave(2, 0).tolist()
    assert twice[2:4].initial.flatten().tolist() == [1, 1]
    assert twice[2:4].features.tolist() == [[2, 3], [2, 3]]
    assert Condition(features=values)[1:2].features.tolist() == [[2, 3]]
    assert Condition().repeat(3) == Condition()


def test_samples_do_not_depend_on_the_batch_and_the_head_survives_storage(tmp_path):
    prior, scan = tiny_prior(), tiny_scan()
    head = tiny_htransform(prior, reference="tv", scan_features=True, spread_slopes=SPREAD_SLOPES)
    with torch.no_grad():
        head.scan_embedding[-1].weight.normal_(0, 0.1)
    save_htransform(head, tmp_path / "head", dtype=torch.float32)
    head = load_htransform(tmp_path / "head")
    assert head.config.spread_slopes == SPREAD_SLOPES
    y = scan.simulate(tiny_slices(3), seed=1)
    whole = DEFT(prior, head, DEFTConfig(steps=3, batch_size=5)).reconstruct(
        y, scan, num_samples=2, seed=7, image_ids="abc"
    )
    single = DEFT(prior, head, DEFTConfig(steps=3, batch_size=1)).reconstruct(
        y[1:2], scan, num_samples=2, seed=7, image_ids=["b"]
    )
    scale = whole.samples.abs().max()
    torch.testing.assert_close(single.samples[0] / scale, whole.samples[1] / scale, rtol=0, atol=1e-5)


def test_heads_without_scan_features_keep_their_description():
    described = HTransformConfig().to_dict()
    assert "scan_features" not in described
    assert "spread_slopes" not in described
    assert HTransformConfig.from_dict(described) == HTransformConfig()


class Slices:
    """A few slices in HU."""

    pixel_mm = (8.0,) * 6

    def __len__(self):
        return 6

    def batch(self, indices):
        return HounsfieldScale().to_hu(tiny_slices(6))[indices]


def _unit(views, photons=1e5):
    return tiny_scan(views=views, photons=photons, pixel_mm=1.0)


def test_measurements_are_drawn_as_often_as_their_weights_say():
    source = SlicePairs(Slices(), [_unit(4), _unit(8), _unit(12)], PriorRange(), refine=1, weights=[3.0, 1.0, 0.0])
    drawn = [
        source.draw(torch.tensor([0]), torch.Generator().manual_seed(step)).likelihood.y.shape[2] for step in range(80)
    ]
    assert set(drawn) == {4, 8}
    assert 45 <= drawn.count(4) <= 72
    again = source.draw(torch.tensor([0]), torch.Generator().manual_seed(7)).likelihood.y
    assert torch.equal(again, source.draw(torch.tensor([0]), torch.Generator().manual_seed(7)).likelihood.y)
    for weights in ([1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="one weight >= 0 for each of the 3 measurements"):
            SlicePairs(Slices(), [_unit(4), _unit(8), _unit(12)], PriorRange(), weights=weights)


def test_training_goes_on_from_a_head_of_another_prior_and_learns_of_the_scan(tmp_path):
    old = tiny_htransform(tiny_prior(seed=3), reference="fbp")
    prior = tiny_prior()
    config = HTransformConfig(network=NETWORK, reference="fbp", scan_features=True, spread_slopes=SPREAD_SLOPES)
    training = TrainingConfig(steps=3, batch_size=2, warmup=1)
    with pytest.warns(UserWarning, match="the initial h-transform") as caught:
        head = train_htransform(
            SlicePairs(Slices(), [_unit(6), _unit(12, 1e4)], refine=1, weights=[1.0, 1.0]), prior, tmp_path,
            config=config, training=training, options=HTransformTraining(initial=old), progress=False,
        )  # fmt: skip
    assert len(caught) == 3
    assert head.prior_hash == prior.content_hash()
    assert head.scan_embedding[-1].weight.abs().max() > 0


@pytest.fixture
def fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)  # one process keeps the first precision otherwise
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerator")
def test_operators_stay_in_float32_in_a_mixed_precision_training(tmp_path, monkeypatch):
    seen = []

    def watched(name):
        original = getattr(RayTransform, name)

        def call(self, values):
            out = original(self, values)
            with torch.autocast("cpu", enabled=False):
                exact = original(self, values.float())
            seen.append(out.dtype == torch.float32 and values.dtype == torch.float32 and torch.equal(out, exact))
            return out

        monkeypatch.setattr(RayTransform, name, call)

    for name in ("forward", "adjoint", "pseudo_inverse"):
        watched(name)
    prior = tiny_prior()
    train_htransform(
        SlicePairs(Slices(), [_unit(6)], refine=1), prior, tmp_path, config=HTransformConfig(network=NETWORK),
        progress=False,
        training=TrainingConfig(steps=1, batch_size=2, warmup=1, precision="bfloat16"),
    )  # fmt: skip
    assert len(seen) > 30
    assert all(seen)
    assert not any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))


def test_the_loss_in_mixed_precision_sees_the_same_measurement():
    prior, scan = tiny_prior(), _unit(9)
    pairs = simulate_unit_pixel(
        HounsfieldScale().to_hu(tiny_slices(2)), torch.full((2,), 8.0), scan, prior.value_range, seed=0
    )
    seen = {}

    def network(name):
        def call(x_t, t, x0, eps, guidance, condition):
            seen[name] = (guidance, condition)
            return x0, eps

        return call

    head = tiny_htransform(prior)
    noise, t = torch.randn(2, 1, SIZE, SIZE), torch.tensor([100, 600])
    denoising_loss(network("exact"), head, prior, pairs, t, noise)
    with torch.autocast("cpu", torch.bfloat16):
        denoising_loss(network("mixed"), head, prior, pairs, t, noise)
    assert torch.equal(seen["exact"][1].initial, seen["mixed"][1].initial)
    assert torch.equal(seen["exact"][1].residual, seen["mixed"][1].residual)
