from dataclasses import replace

import pytest
import torch
from tiny import tiny_htransform, tiny_prior, tiny_scan, tiny_slices

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.pairs import SlicePairs, simulate_unit_pixel
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import HTransformConfig, load_htransform, save_htransform
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.refinement import RefinementConfig
from deft_ct.methods.deft.train import denoising_loss, train_htransform
from deft_ct.methods.registry import load_reconstructor, methods
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise
from deft_ct.training import TrainingConfig


@pytest.fixture
def deft():
    prior = tiny_prior()
    return DEFT(prior, tiny_htransform(prior), DEFTConfig(steps=4, estimate="samples", eta=1.0, batch_size=3))


@pytest.mark.parametrize("reference", ["none", "fbp", "tv"])
@pytest.mark.filterwarnings("ignore:data not explained")  # random weights
def test_samples_do_not_depend_on_the_batch(reference):
    prior, scan = tiny_prior(), tiny_scan()
    head = tiny_htransform(prior, reference=reference)
    y = scan.simulate(tiny_slices(3), seed=1)
    config = DEFTConfig(steps=4, batch_size=5, estimate="samples" if reference == "none" else "mean")
    whole = DEFT(prior, head, config).reconstruct(y, scan, num_samples=2, seed=7, image_ids="abc")
    for i, key in enumerate("abc"):
        single = DEFT(prior, head, replace(config, batch_size=1)).reconstruct(
            y[i : i + 1], scan, num_samples=2, seed=7, image_ids=[key]
        )
        scale = whole.samples.abs().max()
        torch.testing.assert_close(single.samples[0] / scale, whole.samples[i] / scale, rtol=0, atol=1e-5)


def test_a_result_depends_on_the_seed_and_on_nothing_else(deft):
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(2))
    torch.manual_seed(1)
    first = deft.reconstruct(y, scan, num_samples=2, seed=5)
    torch.manual_seed(2)
    again = deft.reconstruct(y, scan, num_samples=2, seed=5)
    other = deft.reconstruct(y, scan, num_samples=2, seed=6)
    assert torch.equal(first.samples, again.samples)
    assert not torch.equal(first.samples, other.samples)
    fewer = deft.reconstruct(y, scan, num_samples=1, seed=5)
    torch.testing.assert_close(fewer.samples[:, 0], first.samples[:, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:data not explained")  # random weights
def test_images_with_common_noise_have_samples_that_are_alike(deft):
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(1)).repeat(2, 1, 1, 1)

    def drawn(share, keys="ab", **more):
        method = DEFT(deft.prior, deft.htransform, replace(deft.config, common_noise=share, **more))
        return method.reconstruct(y[: len(keys)], scan, num_samples=3, seed=5, image_ids=keys).samples

    def distance(share):
        first, second = drawn(share)
        return float((first - second).std() / first.std())

    assert distance(1.0) == 0 < 1.2 * distance(0.8) < distance(0.0)
    samples = drawn(1.0)[0]
    assert float((samples[0] - samples[1]).std() / samples.std()) > 0.5 * distance(0.0), "and those of an image differ"
    torch.testing.assert_close(drawn(0.8, "b", batch_size=1)[0], drawn(0.8)[1], rtol=1e-4, atol=1e-6)
    assert torch.equal(drawn(0.0)[0], deft.reconstruct(y, scan, num_samples=3, seed=5, image_ids="ab").samples[0])
    assert replace(deft.config, common_noise=0.8).sampling == deft.config.sampling, "a calibration holds for both"
    with pytest.raises(ValueError, match="common_noise must lie"):
        DEFTConfig(common_noise=1.1)


def test_shapes_units_and_record(deft):
    scan = tiny_scan()
    result = deft.reconstruct(scan.simulate(tiny_slices(2)), scan, num_samples=3)
    assert result.mean.shape == result.std.shape == (2, 1, 32, 32)
    assert result.samples.shape == (2, 3, 1, 32, 32)
    torch.testing.assert_close(result.mean, result.samples.mean(1))
    torch.testing.assert_close(result.in_units.mean, HounsfieldScale().to_hu(result.mean))
    torch.testing.assert_close(result.in_units.std, result.in_units.samples.std(1), rtol=1e-3, atol=1e-2)
    record = result.provenance
    assert record["network_evaluations_per_image"] == 12
    assert record["prior_sha256"] == deft.prior.content_hash()
    assert record["htransform_sha256"] == deft.htransform.content_hash()
    assert record["data_residual"] > 0
    assert deft.reconstruct(scan.simulate(tiny_slices(1)), scan).std is None


def test_no_gradient_and_no_graph_reaches_the_prior_in_training_or_sampling(monkeypatch):
    prior, scan = tiny_prior(), tiny_scan(pixel_mm=1.0)
    head = tiny_htransform(prior).train().requires_grad_(True)
    seen = []
    predict = type(prior).predict

    def watched(self, x_t, t):
        out = predict(self, x_t, t)
        seen.append((torch.is_grad_enabled(), any(o.requires_grad or o.grad_fn is not None for o in out)))
        return out

    monkeypatch.setattr(type(prior), "predict", watched)
    hu = HounsfieldScale().to_hu(tiny_slices(2))
    pairs = simulate_unit_pixel(hu, torch.full((2,), 8.0), scan, prior.value_range, seed=0)
    x0 = pairs.x0.clone().requires_grad_()  # even where the image asks for one
    pairs = type(pairs)(x0=x0, likelihood=pairs.likelihood)
    loss = denoising_loss(head, head, prior, pairs, torch.tensor([100, 600]), torch.randn(2, 1, 32, 32))
    loss.backward()
    assert seen == [(False, False)]
    assert all(p.grad is None for p in prior.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    DEFT(prior, head, DEFTConfig(steps=2)).reconstruct(scan.simulate(tiny_slices(1)), scan)
    assert all(entry == (False, False) for entry in seen)


def test_training_makes_the_head_better_and_leaves_the_prior_alone(tmp_path):
    prior = tiny_prior()
    before = prior.content_hash()
    slices = HounsfieldScale().to_hu(tiny_slices(12))

    class Source:
        pixel_mm = [8.0] * 12

        def __len__(self):
            return 12

        def batch(self, indices):
            return slices[indices]

    geometry = ParallelGeometry(image_shape=(32, 32), pixel_mm=1.0, views=12, detectors=48, detector_mm=1.0)
    unit = Measurement(RayTransform(geometry), PoissonNoise(photons=1e5), units=HounsfieldScale())
    head = train_htransform(
        SlicePairs(Source(), [unit]), prior, tmp_path,
        config=HTransformConfig(network=prior.network.config, reference="fbp", spread=0.3),
        training=TrainingConfig(steps=150, batch_size=4, learning_rate=2e-3, warmup=5, ema_decay=0.9), progress=False,
    )  # fmt: skip
    assert prior.content_hash() == before
    scan = tiny_scan()
    x = tiny_slices(4)
    y = scan.simulate(x, seed=9)
    fbp = load_reconstructor("fbp", filter="ram-lak").reconstruct(y, scan).mean  # the reference of this head
    trained = DEFT(prior, head, DEFTConfig(estimate="mean", draws=4)).reconstruct(y, scan).mean
    assert (trained - x).norm() < 0.8 * (fbp - x).norm()
    save_htransform(head, tmp_path / "head")
    loaded = load_htransform(tmp_path / "head")
    assert loaded.config == head.config
    again = DEFT(prior, loaded, DEFTConfig(estimate="mean", draws=4)).reconstruct(y, scan).mean
    torch.testing.assert_close(again, trained, rtol=0, atol=1e-4)


def test_an_h_transform_of_another_prior_is_refused(deft):
    with pytest.raises(ValueError, match="trained for another prior"):
        DEFT(tiny_prior(seed=5), deft.htransform)


def test_unknown_methods_and_options_list_the_known_ones():
    with pytest.raises(ValueError, match=f"unknown method 'magic'; known methods: {', '.join(methods())}"):
        load_reconstructor("magic")
    with pytest.raises(ValueError, match="deft has no option stepz; its options are: steps, batch_size"):
        load_reconstructor("deft", stepz=3)


def test_the_conditional_mean_costs_as_many_evaluations_as_draws_and_keeps_the_spread_of_the_samples():
    prior, scan = tiny_prior(), tiny_scan()
    head = tiny_htransform(prior)
    y = scan.simulate(tiny_slices(3))
    direct = DEFT(prior, head, DEFTConfig(steps=4, estimate="mean", draws=3))
    result = direct.reconstruct(y, scan, seed=1)
    assert result.provenance["network_evaluations_per_image"] == 3
    assert result.samples is None
    single = direct.reconstruct(y[1:2], scan, seed=1, image_ids=[1])
    torch.testing.assert_close(single.mean[0], result.mean[1], rtol=1e-5, atol=1e-7)
    drawn = DEFT(prior, head, DEFTConfig(steps=4, estimate="samples")).reconstruct(y, scan, num_samples=2, seed=1)
    both = direct.reconstruct(y, scan, num_samples=2, seed=1)
    assert torch.equal(both.mean, result.mean)
    assert torch.equal(both.std, drawn.std)
    with pytest.raises(ValueError, match="estimate must be"):
        DEFTConfig(estimate="mode")


@pytest.mark.parametrize(("estimate", "samples"), [("mean", 1), ("mean", 3), ("samples", 2)])
def test_the_initial_reconstruction_and_its_refinement_are_computed_once_a_request(estimate, samples):
    prior, scan = tiny_prior(), tiny_scan()
    head = tiny_htransform(prior, refinement=RefinementConfig(network=prior.network.config))
    calls = {"initial": 0, "refinement": 0}
    initial = head.initial

    def counted(likelihood):
        calls["initial"] += 1
        return initial(likelihood)

    head.initial = counted
    head.refinement.register_forward_hook(lambda *_: calls.update(refinement=calls["refinement"] + 1))
    method = DEFT(prior, head, DEFTConfig(steps=2, batch_size=2, estimate=estimate))
    method.reconstruct(scan.simulate(tiny_slices(2)), scan, num_samples=samples)
    assert calls == {"initial": 1, "refinement": 1}


@pytest.mark.parametrize("bad", [{"steps": 0}, {"eta": 2.0}, {"batch_size": 0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError):
        DEFTConfig(**bad)


def test_num_samples_must_not_be_negative(deft):
    scan = tiny_scan()
    with pytest.raises(ValueError, match="num_samples"):
        deft.reconstruct(scan.simulate(tiny_slices(1)), scan, num_samples=-1)
