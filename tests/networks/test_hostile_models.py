"""Folders of models whose JSON or weights are wrong: one error with the path, and no memory for what is not there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_htransform, tiny_prior

from deft_ct.diffusion.prior_folder import METADATA, WEIGHTS, load_prior, save_prior
from deft_ct.methods.deft.folder import load_htransform, save_htransform
from deft_ct.methods.deft.spread_calibration import SpreadCalibration
from deft_ct.methods.presets import load_preset
from deft_ct.methods.supervised.fbp_unet import FBPUNetModel
from deft_ct.runtime.read_error import ReadError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_prior(tiny_prior(), tmp_path / "prior")
    return tmp_path / "prior"


def change(folder: Path, edit: Callable[[Any], Any], name: str = METADATA) -> None:
    content = json.loads((folder / name).read_text())
    edit(content)
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda c: c["network"].update(typo=1), "unknown key typo; known: in_channels"),
        (lambda c: c["network"].update(layers=1.5), "layers must be a whole number, got 1.5"),
        (lambda c: c["network"].update(layers=True), "layers must be a whole number, got True"),
        (lambda c: c["network"].update(channels="64"), "channels must be a list, got '64'"),
        (lambda c: c["network"].update(channels=[2**20, 2**20]), "must be at most 8192"),
        (lambda c: c["network"].update(layers=10**9), "at most 16 levels"),
        (lambda c: c["network"].update(layers=10**400), "layers must be a whole number"),
        (lambda c: c["network"].update(norm_groups=0), "must be at least 1"),
        (lambda c: c["network"].update(kind=["unet"]), "unknown kind of network"),
        (lambda c: c.update(network=None), "expected the description of a network"),
        (lambda c: c.update(network={}), "weights do not fit"),
        (lambda c: c["schedule"].update(steps=10**12), "steps must lie in"),
        (lambda c: c["schedule"].update(beta_end=float("nan")), "beta_end must be a finite number, got None"),
        (lambda c: c["schedule"].update(kind="other"), "kind must be one of"),
        (lambda c: c["schedule"].update(typo=1), "unknown key typo"),
        (lambda c: c.update(value_range_hu=[1, 2, 3]), "a list of 2 values"),
        (lambda c: c.update(value_range_hu=[1, -1]), "low < high"),
        (lambda c: c.update(image_size=10**9), "image_shape must be"),
        (lambda c: c.update(image_size="32"), "each value is a whole number"),
        (lambda c: c.update(prediction=["epsilon"]), "prediction must be text"),
        (lambda c: c.update(card=[]), "card must be an object"),
        (lambda c: c.pop("schedule"), "'schedule' is missing"),
        (lambda c: c.update(sha256=5), "do not match their SHA-256"),
        (lambda c: c["schedule"].update(beta_end=0.5), "do not match their SHA-256"),
    ],
)
def test_descriptions_that_are_wrong(folder: Path, edit: Callable[[Any], Any], why: str) -> None:
    change(folder, edit)
    start = time.monotonic()
    with pytest.raises(ReadError, match=why) as caught:
        load_prior(folder)
    assert caught.value.path.startswith(str(folder)) and time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "holds a JSON list"), ("", "is the copy complete"), ("{" * 100_000, "is not a prior"),
        ("[" * 200_000, "is not a prior"), ('{"a": ' + "9" * 5000 + "}", "is not a prior"),
        ("\ud800", "is not a prior"),
    ],
)  # fmt: skip
def test_metadata_that_is_no_object(folder: Path, text: str, why: str) -> None:
    (folder / METADATA).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ReadError, match=why):
        load_prior(folder)


def test_nan_in_a_card_is_no_reason_to_refuse(folder: Path) -> None:
    change(folder, lambda c: c["card"].update(loss=float("nan")))
    assert load_prior(folder).card["loss"] is None


def test_weights_that_are_wrong(folder: Path) -> None:
    path = folder / WEIGHTS
    whole, weights = path.read_bytes(), load_file(path)
    for length in (0, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError, match="is the copy complete"):
            load_prior(folder)
    first = next(iter(weights))
    for value, why in (
        (torch.full_like(weights[first], torch.nan), "not finite numbers"),
        (torch.zeros(weights[first].shape, dtype=torch.int32), "not finite numbers"),
        (torch.zeros(3), "1 weights do not fit"),
    ):
        save_file({**weights, first: value}, path)
        with pytest.raises(ReadError, match=why):
            load_prior(folder)
    path.unlink()
    with pytest.raises(ReadError, match=r"diffusion_pytorch_model\.safetensors is missing"):
        load_prior(folder)


def test_htransforms_and_their_calibrations(folder: Path, tmp_path: Path) -> None:
    save_htransform(tiny_htransform(tiny_prior()), tmp_path / "head")
    calibration = SpreadCalibration(factor=1.2)
    calibration.write(tmp_path / "head" / "calibration.json")
    assert load_htransform(tmp_path / "head").card["calibrations"][0]["factor"] == 1.2
    for values, why in (
        ({"factor": "x"}, "factor must be a finite number"), ({"factor": 1.0, "typo": 1}, "unknown key typo"),
        ({}, "key factor is missing"), 
        ({"factor": 10**400}, "finite number"),
        ({"factor": -1.0}, "not negative"), ({"factor": 1.0, "level": 2.0}, "level < 1"),
        ({"factor": 1.0, "scan": []}, "scan must be an object"),
    ):  # fmt: skip
        (tmp_path / "head" / "calibration.json").write_text(json.dumps(values))
        with pytest.raises(ReadError, match=rf"calibration\.json: is not a calibration .*{why}"):
            load_htransform(tmp_path / "head")
    calibration.write(tmp_path / "head" / "calibration.json")
    change(tmp_path / "head", lambda c: c["config"].update(typo=1), "htransform.json")
    with pytest.raises(ReadError, match="unknown key typo"):
        load_htransform(tmp_path / "head")
    change(tmp_path / "head", lambda c: c.update(config=3), "htransform.json")
    with pytest.raises(ReadError, match="description of an h-transform"):
        load_htransform(tmp_path / "head")


def test_trained_models(tmp_path: Path) -> None:
    shape = FBPUNetModel.shape_type(network=tiny_prior().network.config)
    FBPUNetModel(shape).save(tmp_path / "m")
    assert FBPUNetModel.load(tmp_path / "m").shape == shape
    for edit, why in (
        (lambda c: c["shape"].update(spread="wide"), "spread must be a finite number"),
        (lambda c: c["shape"].update(network=7), "network must be a UNetConfig, got 7"),
        (lambda c: c.update(shape=7), "expected an object with the keys"),
        (lambda c: c.update(kind=7), "of kind '7'"),
    ):
        change(tmp_path / "m", edit, "model.json")
        with pytest.raises(ReadError, match=why):
            FBPUNetModel.load(tmp_path / "m")


def test_presets(tmp_path: Path) -> None:
    path, whole = tmp_path / "p.json", {"method": "tv", "scan": "x", "options": {"strength": 1.0}, "provenance": {}}
    path.write_text(json.dumps(whole))
    assert load_preset("tv", path).options == {"strength": 1.0}
    for changed, why in (
        ({"options": []}, "options must be an object"), ({"method": 3}, "method must be text"),
        ({"method": "dps"}, "is a preset for dps, not for tv"),
    ):  # fmt: skip
        path.write_text(json.dumps(whole | changed))
        with pytest.raises(ReadError, match=why):
            load_preset("tv", path)
    path.write_text(json.dumps({"method": "tv"}))
    with pytest.raises(ReadError, match="scan, options, provenance is missing"):
        load_preset("tv", path)
