"""Restoring a picture file: any size and kind of pixels, simulated or measured, whole outputs and a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NETWORK, tiny_htransform, tiny_prior
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.diffusion import Prior, load_prior, save_prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.methods.deft import save_htransform
from deft_ct.networks import UNet
from deft_ct.problems.natural_by_name import parse_task
from deft_ct.workflows.restore import RestoreSettings, restore_photograph

RNG = np.random.default_rng(0)


def picture(folder: Path, shape: tuple[int, ...] = (33, 47, 3), name: str = "true.png", dtype: Any = np.uint8) -> Path:
    """A smooth picture."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    level = 0.5 + 0.4 * np.sin(rows / 7) * np.cos(columns / 9)
    pixels = (level * np.iinfo(dtype).max).astype(dtype)
    if len(shape) == 3:
        pixels = np.stack([pixels, pixels // 2, pixels.max() - pixels, np.full_like(pixels, 9)][: shape[2]], -1)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def classical(operator: str | None = "sr4", **values: Any) -> RestoreSettings:
    return RestoreSettings(operator=operator, method="cgls", options={"iterations": 20}, **values)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int64)


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("prior") / "prior"
    save_prior(Prior(UNet(NETWORK.with_channels(3, 3)), Schedule(), image_shape=(3, 16, 16)), folder)
    return str(folder)


@pytest.mark.parametrize(
    ("shape", "dtype", "mode"),
    [((33, 47, 3), np.uint8, "RGB"), ((33, 47), np.uint8, "L"), ((33, 47), np.uint16, "I;16"),
     ((9, 8, 4), np.uint8, "RGB")],
)  # fmt: skip
def test_any_size_and_kind_of_pixels_comes_back_as_it_was(
    shape: tuple[int, ...], dtype: Any, mode: str, tmp_path: Path
) -> None:
    source = picture(tmp_path, shape, dtype=dtype)
    restored = restore_photograph(source, tmp_path / "out", classical(noise=0.01))
    with Image.open(tmp_path / "out" / "restored.png") as image:
        assert (image.mode, image.size) == (mode, (shape[1], shape[0]))
    height, width = -(-shape[0] // 4), -(-shape[1] // 4)
    assert pixels(tmp_path / "out" / "degraded.png").shape[:2] == (height, width)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["metrics"]["psnr_db"] > 20 and record["data_residual"] < 0.05
    assert record["metrics"] == restored.metrics and record["settings"]["operator"] == "sr4"
    assert (
        set(record["files"]) == {"restored.png", "degraded.png"} and record["source"]["picture"]["name"] == "true.png"
    )
    assert any("continued" in note for note in record["notes"])
    assert ("the transparency is dropped" in record["notes"]) == (len(shape) == 3 and shape[2] == 4)


def test_the_degraded_picture_can_be_restored_again(tmp_path: Path) -> None:
    source = picture(tmp_path, (32, 48, 3))
    first = restore_photograph(source, tmp_path / "one", classical(noise=0.02))
    again = restore_photograph(
        tmp_path / "one" / "degraded.png", tmp_path / "two", classical(measured=True, noise=0.02)
    )
    assert np.abs(pixels(tmp_path / "one" / "restored.png") - pixels(tmp_path / "two" / "restored.png")).max() <= 2
    assert first.metrics and not again.metrics
    assert pixels(tmp_path / "two" / "degraded.png").tolist() == pixels(tmp_path / "one" / "degraded.png").tolist()


def test_a_mask_and_a_kernel_of_a_measured_picture(tmp_path: Path) -> None:
    source = picture(tmp_path, (16, 20, 3))
    mask = np.full((16, 20), 255, np.uint8)
    mask[4:9, 5:11] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    restore_photograph(source, tmp_path / "a", classical(None, measured=True, mask=str(tmp_path / "mask.png"), noise=0))
    got, true = pixels(tmp_path / "a" / "restored.png"), pixels(source)
    seen = mask > 0
    assert np.abs(got - true)[seen].max() <= 1 and np.abs(got[~seen] - 127.5).max() <= 1  # nothing known: 0
    np.save(tmp_path / "kernel.npy", np.ones((1, 3)))
    blurred = restore_photograph(source, tmp_path / "b", classical(None, kernel=str(tmp_path / "kernel.npy"), noise=0))
    assert blurred.metrics["psnr_db"] > 30 and blurred.settings.label == "blur"
    with pytest.raises(ValueError, match="the mask has 16 x 20 pixels and the picture 33 x 47"):
        restore_photograph(
            picture(tmp_path, name="other.png"), tmp_path / "c", classical(None, mask=str(tmp_path / "mask.png"))
        )
    assert not (tmp_path / "c").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")  # the weights are random
def test_a_prior_restores_a_larger_picture_in_tiles_and_a_grey_one(prior: str, tmp_path: Path) -> None:
    settings = RestoreSettings(operator="inpaint_box", method="dds", options={"steps": 2}, prior=prior)
    colour = restore_photograph(picture(tmp_path, (20, 37, 3)), tmp_path / "colour", settings)
    grey = restore_photograph(picture(tmp_path, (20, 37), "grey.png"), tmp_path / "grey", settings)
    assert colour.restored.shape == (3, 20, 37) and grey.restored.shape == (1, 20, 37)
    assert colour.result.mean.shape == grey.result.mean.shape == (1, 3, 20, 37)
    again = restore_photograph(tmp_path / "true.png", tmp_path / "again", settings)
    assert torch.equal(again.restored.pixels, colour.restored.pixels)
    assert again.result.provenance["prior_sha256"] == colour.result.provenance["prior_sha256"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # the weights are random
def test_deft_in_tiles_and_an_h_transform_for_each_task(prior: str, tmp_path: Path) -> None:
    loaded = load_prior(prior)
    form = {"channels": 3, "reference": "none", "guidance": "adjoint"}
    heads = {name: tiny_htransform(loaded, seed=n, **form) for n, name in enumerate(("sr2", "sr4"))}
    for name, head in heads.items():
        save_htransform(head, tmp_path / "heads" / name)
    found = {}
    for name, head in heads.items():
        settings = RestoreSettings(
            operator=name, options={"steps": 2}, prior=prior, htransform=str(tmp_path / "heads"), noise=0.1
        )  # fmt: skip
        found[name] = restore_photograph(picture(tmp_path, (20, 24, 3)), tmp_path / name, settings)
        assert found[name].result.provenance["htransform_sha256"] == head.content_hash()
    assert found["sr2"].restored.shape == (3, 20, 24)


@pytest.mark.filterwarnings("ignore::UserWarning")  # the weights are random
def test_colour_from_grey(prior: str, tmp_path: Path) -> None:
    settings = RestoreSettings(operator="colorization", measured=True, method="dds", options={"steps": 2}, prior=prior)
    restored = restore_photograph(picture(tmp_path, (16, 16)), tmp_path / "out", settings)
    assert restored.restored.shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"operator": None}, "say the degradation once, by --operator, --mask or --kernel; got none"),
        ({"operator": "sr4", "mask": "x"}, "got --operator and --mask"),
        ({"operator": "sr5"}, "unknown task 'sr5'; known are"),
        ({"operator": "sr4", "noise": -1.0}, "noise must be from 0 to 10"),
        ({"operator": "sr4", "method": "magic"}, "unknown method 'magic'"),
        ({"operator": "sr4", "samples": -1}, "samples must be at least 0"),
    ],
)
def test_settings_are_refused_in_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RestoreSettings(**values)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        ("inpaint_random", "is drawn by chance, so its mask or kernel is not known for a measured picture"),
        ("phase_retrieval", "a picture of 3 channels and 16 x 16 pixels cannot be the data of phase_retrieval"),
        ("compressed_sensing", "cannot be the data of compressed_sensing"),
    ],
)
def test_a_measured_picture_must_be_data_of_a_known_degradation(operator: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        restore_photograph(picture(tmp_path, (16, 16, 3)), tmp_path / "out", classical(operator, measured=True))
    assert not (tmp_path / "out").exists()


def test_a_prior_of_photographs_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deft_ct.workflows.natural_networks.shipped_priors", lambda: ["ct256-small"])
    with pytest.raises(FileNotFoundError, match=r"deft needs a prior of photographs, and none comes with .* --prior"):
        restore_photograph(picture(tmp_path), tmp_path / "out", RestoreSettings(operator="sr4"))
    save_prior(tiny_prior(), tmp_path / "ct")
    settings = RestoreSettings(operator="sr4", method="dds", prior=str(tmp_path / "ct"))
    with pytest.raises(ValueError, match="the prior is for CT numbers, not for photographs"):
        restore_photograph(tmp_path / "true.png", tmp_path / "out", settings)


@pytest.mark.parametrize("out", ["out", "out.png"])
def test_results_are_not_replaced_unless_they_are_ours(out: str, tmp_path: Path) -> None:
    source, target = picture(tmp_path, (16, 16)), tmp_path / "there" / out
    restore_photograph(source, target, classical())
    with pytest.raises(FileExistsError, match="--overwrite"):
        restore_photograph(source, target, classical())
    before = sorted(path.name for path in (tmp_path / "there").rglob("*"))
    assert ("out.run.json" in before) == (out == "out.png")
    restore_photograph(source, target, classical("sr2"), overwrite=True)
    assert sorted(path.name for path in (tmp_path / "there").rglob("*")) == before
    mine = target if out == "out.png" else target / "restored.png"
    Image.new("L", (3, 3)).save(mine)
    with pytest.raises(FileExistsError):
        restore_photograph(source, target, classical(), overwrite=True)
    assert pixels(mine).shape == (3, 3)


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    source = picture(tmp_path, (16, 16))
    with pytest.raises(ValueError, match="is the picture that is read"):
        restore_photograph(source, source, classical(), overwrite=True)


def test_the_command(tmp_path: Path) -> None:
    source = picture(tmp_path, (16, 16))
    words = ["restore", source, "--operator", "sr4", "--method", "cgls:iterations=5", "--out", tmp_path / "x.png"]

    def invoke_command(*more: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in more])

    done = invoke_command(*words)
    assert done.exit_code == 0 and "sr4, cgls: data residual" in done.output and "PSNR" in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"true.png", "x.png", "x.degraded.png", "x.run.json"}
    refused = invoke_command(*words)
    assert refused.exit_code == 2 and "is there already" in refused.output
    assert invoke_command(*words, "--overwrite").exit_code == 0


def test_tasks_whose_data_are_pictures_can_be_measured(tmp_path: Path) -> None:
    for name in ("denoise", "inpaint_box", "sr2", "gaussian_blur"):
        assert parse_task(name).label == name
        restored = restore_photograph(
            picture(tmp_path, (16, 16, 3)), tmp_path / name, classical(name, measured=True)
        )  # fmt: skip
        assert restored.result.provenance["data_residual"] < 0.5
