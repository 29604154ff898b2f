"""Folders of diffusers as priors, made by diffusers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from deft_ct.diffusion import Prior, load_prior, save_prior
from deft_ct.diffusion.importers import ImportOptions, import_prior
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks import UNet, network_config
from deft_ct.networks import diffusers_unet as module
from deft_ct.networks.diffusers_unet import DiffusersUNet, DiffusersUNetConfig, native_config
from deft_ct.runtime.read_error import ReadError

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")

COMMON = {"in_channels": 1, "out_channels": 1, "block_out_channels": (32, 32), "layers_per_block": 1}
NATIVE = COMMON | {
    "sample_size": 16, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 8,
}  # fmt: skip
# As google/ddpm-celebahq-256: another padding, order and offset of the embedding, and epsilon.
OLD = NATIVE | {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6}


def _unet(values: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(**values).eval()
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.05)
    return network


def _same(prior: Prior, network: Any) -> None:
    x = torch.randn(2, prior.channels, 16, 16, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([7, 600])
    with torch.no_grad():
        torch.testing.assert_close(prior.network(x, t.float()), network(x, t).sample, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("values", "kind"), [(NATIVE, UNet), (OLD, DiffusersUNet)])
def test_a_network_alone(values: dict[str, Any], kind: type, tmp_path: Path) -> None:
    network = _unet(values)
    network.save_pretrained(tmp_path / "unet")
    prior = import_prior(tmp_path / "unet", ImportOptions(value_range=PriorRange(-1000, 2000)))
    assert isinstance(prior.network, kind) and prior.image_shape == (1, 16, 16)
    assert (prior.prediction, prior.schedule.kind) == ("epsilon", "linear")
    _same(prior, network)


@pytest.mark.parametrize("scheduler", ["DDPMScheduler", "DDIMScheduler"])
def test_a_pipeline_brings_its_schedule(scheduler: str, tmp_path: Path) -> None:
    network = _unet(NATIVE)
    settings = {"num_train_timesteps": 500, "beta_schedule": "scaled_linear", "beta_end": 0.012}
    noise = getattr(diffusers, scheduler)(prediction_type="v_prediction", **settings)
    diffusers.DDPMPipeline(unet=network, scheduler=noise).save_pretrained(tmp_path / "pipeline")
    prior = load_prior(tmp_path / "pipeline")
    assert prior.prediction == "v_prediction" and prior.schedule.steps == 500
    torch.testing.assert_close(prior.schedule.alpha_bars.float(), noise.alphas_cumprod, rtol=1e-4, atol=1e-6)
    _same(prior, network)


@pytest.mark.parametrize("values", [NATIVE, OLD])
def test_an_imported_prior_is_ours_and_still_theirs(values: dict[str, Any], tmp_path: Path) -> None:
    network = _unet(values)
    network.save_pretrained(tmp_path / "unet")
    prior = import_prior(tmp_path / "unet")
    save_prior(prior, tmp_path / "prior", dtype=torch.float32)
    back = load_prior(tmp_path / "prior")
    assert back.content_hash() == prior.content_hash()
    _same(back, network)
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "prior", low_cpu_mem_usage=False).eval()
    _same(back, theirs)


def test_weights_in_torchs_own_format(tmp_path: Path) -> None:
    network = _unet(NATIVE)
    network.save_pretrained(tmp_path / "unet", safe_serialization=False)
    assert (tmp_path / "unet/diffusion_pytorch_model.bin").is_file()
    _same(import_prior(tmp_path / "unet"), network)


def test_the_defaults_are_those_of_diffusers() -> None:
    import inspect

    theirs = inspect.signature(diffusers.UNet2DModel.__init__).parameters
    assert {name: p.default for name, p in theirs.items() if name != "self"} == dict(module._DEFAULTS)


@pytest.mark.parametrize(
    "changes",
    [{"act_fn": "gelu"}, {"resnet_time_scale_shift": "scale_shift"}, {"attention_head_dim": None},
     {"attention_head_dim": 5}, {"up_block_types": ("UpBlock2D", "UpBlock2D")}, {"unheard_of": 1},
     {"down_block_types": ("SkipDownBlock2D", "AttnDownBlock2D")}, {"mid_block_scale_factor": 2}],
)  # fmt: skip
def test_what_our_network_does_not_compute_is_left_to_diffusers(changes: dict[str, Any]) -> None:
    assert native_config(NATIVE) is not None and native_config(NATIVE | changes) is None


def _folder(root: Path, network: dict[str, Any] | None = None, scheduler: dict[str, Any] | None = None) -> Path:
    _unet(NATIVE).save_pretrained(root / "p")
    if network is not None:
        path = root / "p/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | network))
    if scheduler is not None:
        (root / "p/scheduler_config.json").write_text(json.dumps(scheduler))
    return root / "p"


@pytest.mark.parametrize(
    ("network", "scheduler", "problem"),
    [
        ({"_class_name": "UNet2DConditionModel"}, None, "is a UNet2DConditionModel; only a UNet2DModel"),
        ({"num_class_embeds": 10}, None, "conditioned on classes"),
        ({"layers_per_block": 2}, None, "weights do not fit"),
        ({"in_channels": "many"}, None, "cannot be used as a prior"),
        (None, {"_class_name": "ScoreSdeVeScheduler"}, "does not preserve the variance"),
        (None, {"_class_name": "EDMEulerScheduler"}, "does not preserve the variance"),
        (None, {"trained_betas": [0.1, 0.2]}, "has betas of its own"),
        (None, {"beta_schedule": "sigmoid"}, "has the beta_schedule 'sigmoid'"),
        (None, {"prediction_type": "flow"}, "has the prediction_type 'flow'"),
        (None, {"num_train_timesteps": 0}, "is not a usable schedule"),
    ],
)
def test_folders_that_cannot_be_priors(
    network: dict[str, Any] | None, scheduler: dict[str, Any] | None, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ReadError, match=problem):
        load_prior(_folder(tmp_path, network, scheduler))


def test_folders_without_their_files(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"short")
    with pytest.raises(ReadError, match="cannot be read as weights"):
        load_prior(folder)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ReadError, match="has no weights"):
        load_prior(folder)
    torch.save([1, 2], folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ReadError, match="something else than weights"):
        load_prior(folder)
    (tmp_path / "q").mkdir()
    (tmp_path / "q/model_index.json").write_text("{}")
    with pytest.raises(ReadError, match=r"is not a folder of diffusers: unet/config\.json is missing"):
        load_prior(tmp_path / "q")


def test_the_rules_of_a_network_of_this_package() -> None:
    config = DiffusersUNetConfig(values={**OLD, "block_out_channels": [32, 32]})
    assert network_config(config.to_dict()) == config and config.multiple == 2
    assert config.layout(1) == (1, "H", "W") and config.small(32).channels == (32,)
    assert config.with_channels(3, 2).values["in_channels"] == 3
    network = config.build()
    assert network.embedding_width == 128
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        network(torch.zeros(1, 2, 16, 16), torch.zeros(1))
    odd = torch.randn(1, 1, 15, 16, generator=torch.Generator().manual_seed(0))
    whole = torch.cat([odd, odd[:, :, -1:]], 2)  # the last row again
    assert torch.equal(network(odd, torch.zeros(1)), network(whole, torch.zeros(1))[:, :, :15])
    with pytest.raises(ValueError, match="no features beside the time"):
        network(torch.zeros(1, 1, 16, 16), torch.zeros(1), torch.zeros(1, 128))
    network.zero_output()
    assert not network(torch.ones(1, 1, 16, 16), torch.zeros(1)).any()
    with pytest.raises(ValueError, match="in_channels of the network"):
        DiffusersUNetConfig(values={"out_channels": 1})


def test_the_extra_is_named_where_diffusers_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    _unet(OLD).save_pretrained(folder)
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"pip install 'deft-ct\[diffusers\]'"):
        load_prior(folder)


def test_options_out_of_range() -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        ImportOptions(image_size=0)
