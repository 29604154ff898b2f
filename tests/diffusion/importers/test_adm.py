"""Checkpoints of guided-diffusion against a network with its names and arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adm import ADMConfig, random_adm

from deft_ct.diffusion import Prior, load_prior, save_prior
from deft_ct.diffusion.importers import ImportOptions, import_prior
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks import UNet
from deft_ct.networks.diffusers_unet import DiffusersUNet
from deft_ct.runtime.read_error import ReadError

CONFIGS = {
    "plain": ADMConfig(),
    "colour": ADMConfig(image_channels=3, outputs=3, layers=2, channels=(32, 32, 64), attention=(False, True, False)),
    "variance": ADMConfig(image_channels=3, outputs=6, scale_shift=True),
    "by kind": ADMConfig(by_kind=True),
    "residual": ADMConfig(
        residual_resampling=True, scale_shift=True, channels=(32, 64, 64), attention=(False, True, True)
    ),
    "one level": ADMConfig(channels=(32,), attention=(True,)),
}
OURS = {"plain", "colour", "variance", "by kind", "one level"}


def _options(config: ADMConfig) -> ImportOptions:
    return ImportOptions(head_channels=config.head_channels, by_kind=config.by_kind, image_size=32)


def _imported(config: ADMConfig, folder: Path, **wrap: Any) -> tuple[torch.nn.Module, Prior]:
    network = random_adm(config)
    torch.save(network.state_dict(), folder / "model.pt")
    return network, import_prior(folder / "model.pt", _options(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_noise_is_what_the_network_predicts(name: str, tmp_path: Path) -> None:
    if name not in OURS:
        pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    config = CONFIGS[name]
    network, prior = _imported(config, tmp_path)
    assert isinstance(prior.network, UNet if name in OURS else DiffusersUNet)
    x = torch.randn(3, config.image_channels, 32, 24, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 401, 999])
    with torch.no_grad():
        expected = network(x, t)[:, : config.image_channels]
        torch.testing.assert_close(prior.eps(x, t), expected, rtol=0, atol=1e-5)
    assert prior.image_shape == (config.image_channels, 32, 32)


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_an_imported_prior_is_stored_and_loaded(name: str, tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    _, prior = _imported(CONFIGS[name], tmp_path)
    prior.value_range, prior.card = PriorRange(-1000, 3000), {"source": "here"}
    save_prior(prior, tmp_path / "prior", dtype=torch.float32)
    back = load_prior(tmp_path / "prior")
    assert back.content_hash() == prior.content_hash() and back.card == {"source": "here"}
    x, t = torch.randn(1, 1, 16, 16), torch.tensor([500])
    assert torch.equal(back.eps(x, t), prior.eps(x, t))


def test_load_prior_takes_the_file_itself(tmp_path: Path) -> None:
    config = ADMConfig(head_channels=64, channels=(64, 64))
    torch.save(random_adm(config).state_dict(), tmp_path / "model.pt")
    assert load_prior(tmp_path / "model.pt").image_shape == (1, 256, 256)


@pytest.mark.parametrize("key", ["state_dict", "ema"])
def test_weights_under_a_usual_name(key: str, tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in random_adm(ADMConfig()).state_dict().items()}
    torch.save({key: state, "step": 3}, tmp_path / "model.pt")
    assert import_prior(tmp_path / "model.pt", _options(ADMConfig())).channels == 1


def test_the_wrong_order_of_heads_gives_another_network(tmp_path: Path) -> None:
    """The order cannot be seen in the shapes; this holds that the option does something."""
    _, prior = _imported(ADMConfig(), tmp_path)
    other = import_prior(tmp_path / "model.pt", ImportOptions(head_channels=16, by_kind=True, image_size=32))
    assert other.content_hash() != prior.content_hash()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s | {"label_emb.weight": torch.zeros(2, 4)}, "conditioned on classes"),
        (lambda s: {k: v for k, v in s.items() if k != "output_blocks.0.0.in_layers.2.weight"}, "do not fit"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("output_blocks.3")}, "blocks on the way down"),
        (lambda s: s | {"middle_block.7.norm.weight": torch.zeros(3)}, "unknown weight middle_block.7"),
        (lambda s: s | {"middle_block.0.odd.weight": torch.zeros(3)}, "unknown weight middle_block.0.odd"),
        (lambda s: s | {"odd.weight": torch.zeros(3)}, "unknown weight odd"),
        (lambda s: {k: v for k, v in s.items() if k != "out.2.weight"}, "not those of a U-Net of guided-diffusion"),
        (lambda s: {"other": torch.zeros(2)}, "no weights of a U-Net"),
        (lambda s: s | {"out.2.weight": torch.zeros(3, 32, 3, 3), "out.2.bias": torch.zeros(3)}, "1 channels to 3"),
    ],
)  # fmt: skip
def test_other_weights_are_refused(change: Any, problem: str, tmp_path: Path) -> None:
    torch.save(change(random_adm(ADMConfig()).state_dict()), tmp_path / "model.pt")
    with pytest.raises(ReadError, match=problem) as caught:
        import_prior(tmp_path / "model.pt", _options(ADMConfig()))
    assert caught.value.path == str(tmp_path / "model.pt")


def test_heads_that_do_not_fit_say_what_to_pass(tmp_path: Path) -> None:
    torch.save(random_adm(ADMConfig()).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ReadError, match="no multiple of head_channels 48: pass the num_head_channels"):
        import_prior(tmp_path / "model.pt", ImportOptions(head_channels=48))


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("code of a stranger",)


def test_a_checkpoint_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": _Evil()}, tmp_path / "model.pt")
    with pytest.raises(ReadError, match="holds more than weights"):
        import_prior(tmp_path / "model.pt")
    assert capsys.readouterr().out == ""


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").write_bytes(b"\0" * 200)
    with pytest.raises(ReadError, match="is not a checkpoint"):
        import_prior(tmp_path / "scan.dcm")
    (tmp_path / "cut.pt").write_bytes(b"PK\3\4")
    with pytest.raises(ReadError, match="is damaged"):
        import_prior(tmp_path / "cut.pt")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        import_prior(tmp_path / "none.pt")
