import json

import pytest
import torch

from deft_ct.diffusion import Prior, load_prior, save_prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks import UNet, UNetConfig


def tiny_prior(prediction="v_prediction", seed=0):
    torch.manual_seed(seed)
    network = UNet(UNetConfig(patch=2, channels=(32, 32), attention=(False, False)))
    network.to(torch.float16).to(torch.float32)  # what survives storage
    return Prior(
        network,
        Schedule(),
        prediction=prediction,
        value_range=PriorRange(),
        image_shape=(1, 16, 16),
        card={"data": "none"},
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_estimates_of_image_and_noise_belong_together(prediction):
    prior = tiny_prior(prediction)
    x_t = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([20.0, 300.0, 800.0])
    x0, eps = prior.predict(x_t, t)
    torch.testing.assert_close(prior.schedule.add_noise(x0, eps, t), x_t, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prior.eps(x_t, t), eps)
    torch.testing.assert_close(prior.denoise(x_t, t), x0)
    assert prior.evaluations == 9


def test_second_half_of_a_learned_variance_is_dropped():
    torch.manual_seed(0)
    network = UNet(UNetConfig(patch=2, out_channels=2, channels=(32,), attention=(False,)))
    assert Prior(network, Schedule(), image_shape=(1, 16, 16)).eps(torch.zeros(1, 1, 16, 16), 5).shape == (1, 1, 16, 16)


def test_frozen_and_never_in_training_mode():
    prior = tiny_prior().train()
    assert not prior.training
    assert not prior.network.training
    assert not any(p.requires_grad for p in prior.parameters())


def test_round_trip_on_disk_and_diffusers_can_open_it(tmp_path):
    prior = tiny_prior()
    save_prior(prior, tmp_path / "prior")
    loaded = load_prior(tmp_path / "prior")
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(loaded.eps(x, 100), prior.eps(x, 100), rtol=1e-6, atol=1e-6)
    assert loaded.content_hash() == prior.content_hash()
    assert loaded.card == {"data": "none"}
    assert loaded.value_range == PriorRange()
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "prior", low_cpu_mem_usage=False).float()
    out = torch.pixel_shuffle(theirs(torch.pixel_unshuffle(x, 2), torch.tensor([100.0])).sample, 2)
    torch.testing.assert_close(loaded.network(x, torch.tensor([100.0])), out, rtol=1e-4, atol=1e-5)
    scheduler = diffusers.DDPMScheduler.from_config(json.loads((tmp_path / "prior/scheduler_config.json").read_text()))
    torch.testing.assert_close(scheduler.alphas_cumprod, prior.schedule.alpha_bars.float(), rtol=2e-5, atol=1e-8)


def test_the_hash_depends_on_weights_and_range():
    assert tiny_prior(seed=0).content_hash() != tiny_prior(seed=1).content_hash()
    other = tiny_prior()
    other.value_range = PriorRange(-1000.0, 2000.0)
    assert other.content_hash() != tiny_prior().content_hash()


def test_damaged_or_missing_files_are_named(tmp_path):
    folder = tmp_path / "prior"
    save_prior(tiny_prior(), folder)
    meta = json.loads((folder / "deft_ct.json").read_text())
    (folder / "deft_ct.json").write_text(json.dumps(meta | {"sha256": "0" * 64}))
    with pytest.raises(ValueError, match="SHA-256"):
        load_prior(folder)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"truncated")
    with pytest.raises(ValueError, match="cannot be read"):
        load_prior(folder)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match="missing"):
        load_prior(folder)
    with pytest.raises(FileNotFoundError, match="no prior 'nothing'"):
        load_prior("nothing")


def test_wrong_channels_and_predictions_are_refused():
    with pytest.raises(ValueError, match="shape"):
        tiny_prior().eps(torch.zeros(1, 3, 16, 16), 5)
    with pytest.raises(ValueError, match="unknown prediction"):
        tiny_prior("velocity")


@pytest.mark.filterwarnings("ignore:data not explained")  # random weights
def test_a_prior_in_continuous_time_is_stored_and_sampled(tmp_path):
    from dataclasses import replace

    from tiny import tiny_prior as ct_prior
    from tiny import tiny_scan, tiny_slices

    import deft_ct as dc

    made = ct_prior()
    prior = Prior(
        made.network.half().float(), replace(made.schedule, kind="vp_sde"), prediction="v_prediction",
        value_range=PriorRange(), image_shape=(1, 32, 32),
    )  # fmt: skip
    save_prior(prior, tmp_path / "prior")
    config = json.loads((tmp_path / "prior" / "scheduler_config.json").read_text())
    assert config["_class_name"] == "ScoreSdeVpScheduler"
    assert config["beta_min"] == pytest.approx(0.1)
    loaded = load_prior(tmp_path / "prior")
    assert loaded.schedule.continuous
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(1))
    drawn = [
        dc.load_reconstructor("dps", prior=p, steps=4).reconstruct(y, scan, seed=0).mean for p in (prior, loaded)
    ]  # fmt: skip
    assert torch.equal(*drawn)
