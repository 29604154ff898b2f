"""The experiments on halved slices: packs, paired differences, and each experiment from end to end in the small."""

from __future__ import annotations

import importlib
import json
import sys

import h5py
import numpy as np
import pytest
from tiny import tiny_prior
from tiny_pack import write_tiny_pack

from deft_ct.ct.scan_range import ScanRange
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import Prior, save_prior
from deft_ct.networks import UNet, UNetConfig


@pytest.fixture
def script(repository_root, monkeypatch):
    """Imports an experiment by name, as its own folder would."""
    monkeypatch.syspath_prepend(str(repository_root / "benchmarks" / "experiments"))
    return importlib.import_module


@pytest.fixture
def work(tmp_path):
    """A folder with packs of 32 x 32 slices and a prior, where the experiments look for those of 128 x 128."""
    for name in ("train", "val"):
        write_tiny_pack(tmp_path / f"{name}.h5", count=1)
    first = tiny_prior()
    network = UNet(UNetConfig(patch=2, channels=(32,), attention=(False,), norm_groups=8))
    prior = Prior(
        network, first.schedule, prediction="v_prediction", value_range=first.value_range, image_shape=(1, 32, 32)
    )
    save_prior(prior, tmp_path / "prior")
    return tmp_path


def _run(module, monkeypatch, work, *options):
    command = ["script", "--work", str(work), "--out", str(work / "out"), "--steps", "1", "--every", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--batch-size", "2", "--precision", "float32", *options])
    module.main()


def test_a_halved_pack_holds_means_of_four_pixels(script, tmp_path):
    source = write_tiny_pack(tmp_path / "full.h5", count=2)
    with h5py.File(source, "a") as file:
        file["series0"].attrs["collection"] = "test"
    halved = script("halved").halve(source, tmp_path / "half.h5")
    full, half = CTPack(source), CTPack(halved)
    assert half.image_shape == (16, 16)
    np.testing.assert_allclose(half.pixel_mm, 2 * full.pixel_mm)
    assert half.groups[0].collection == "test" and half[1].z_mm == full[1].z_mm
    corner = full.array()[:, 6:8, 10:12].mean((1, 2))
    np.testing.assert_allclose(half.array()[:, 3, 5], corner, atol=0.5)


def test_a_halved_scan_keeps_its_width(script):
    halved_scan = script("halved").halved_scan
    assert halved_scan("parallel60_1e5_120deg").name == "parallel60_1e5_120deg_182bins"
    assert halved_scan("fan60_1e5").name == "fan60_1e5"


def test_differences_are_paired(script):
    heads = script("halved_heads")
    found = heads.difference([30.0, 35.0, 28.1], [29.0, 34.0, 27.0])
    assert found.mean == pytest.approx(31 / 30) and 0.8 < found.low < 1.0 < 1.0334 < found.high
    assert heads.interval_text(found).startswith("+1.03 (+0.")


def test_the_spread_of_a_head_for_one_scan_follows_the_rule(script):
    heads, halved_scan = script("halved_heads"), script("halved").halved_scan
    usual = heads.spread_of(halved_scan("parallel60_1e5").unit_measurement((128, 128), 3.0))
    few = heads.spread_of(halved_scan("parallel15_1e5").unit_measurement((128, 128), 3.0))
    assert usual == pytest.approx(0.04, abs=1e-4) and few == pytest.approx(0.04 * np.exp(0.6), rel=1e-3)


@pytest.mark.slow
def test_the_ablations_can_be_taken_up_again(script, monkeypatch, work, capsys):
    module = script("ablations")
    options = ("--scan", "parallel8_1e5", "--samplers", "20 DPM")
    _run(module, monkeypatch, work, *options)
    record = json.loads((work / "out" / "ablations.json").read_text())
    assert [name for name in record["rows"] if name in module.PAPER] == list(module.PAPER)
    assert record["rows"]["conjugate gradients for g"]["config"]["guidance"] == "cg"
    for row in record["rows"].values():
        assert len(row["20 DPM"]["single"]["psnr_db"]["per_slice"]) == 2
    assert "n = 2 slices" in (work / "out" / "ablations.md").read_text()
    capsys.readouterr()
    _run(module, monkeypatch, work, *options)
    assert "one core" not in capsys.readouterr().out
    assert json.loads((work / "out" / "ablations.json").read_text())["rows"] == record["rows"]


def test_small_heads_start_from_random_weights(script, monkeypatch, work):
    module = script("ablations")
    monkeypatch.setattr(module, "SMALL", (32,))  # the shape of the prior here, so that only the start differs
    found = {}
    for name, options in {"ablations": (), "ablations_small": ("--small",)}.items():
        options += ("--scan", "parallel8_1e5", "--samplers", "20 DPM", "--heads", "A* y")
        _run(module, monkeypatch, work, *options)
        found[name] = json.loads((work / "out" / f"{name}.json").read_text())
        assert list(found[name]["rows"]) == ["full", "A* y"]
    usual, small = (record["rows"]["full"] for record in found.values())
    assert usual["config"] == small["config"] and usual["sha256"] != small["sha256"]
    assert "Heads small, from random weights" in (work / "out" / "ablations_small.md").read_text()


@pytest.fixture
def small_refinements(script, monkeypatch):
    module = script("specialist_refinements")
    monkeypatch.setattr(module, "ScanRange", lambda: ScanRange(views=(6, 9)))
    monkeypatch.setattr(module, "GEOMETRIES", 2)
    monkeypatch.setattr(
        module, "NETWORK", UNetConfig(patch=2, channels=(32, 32), attention=(False, False), norm_groups=8)
    )
    monkeypatch.setattr(module, "TV_ITERATIONS", 3)
    return module


@pytest.mark.parametrize("bare", [False, True], ids=["refined", "bare"])
def test_every_head_is_measured_on_every_scan(script, small_refinements, monkeypatch, work, bare):
    module, name = script("specialists"), "specialists_bare_1" if bare else "specialists_1"
    options = ("--scans", "parallel8_1e5", "fan8_1e5", "--refinement-steps", "1", "--batches", "1")
    _run(module, monkeypatch, work, *options, *["--bare"] * bare)
    record = json.loads((work / "out" / f"{name}.json").read_text())
    assert {name: list(row) for name, row in record["direct_mean"].items()} == {
        scan: ["any scan", "parallel8_1e5", "fan8_1e5"] for scan in ("parallel8_1e5", "fan8_1e5")
    }
    refinements = [head["config"].get("refinement") for head in record["heads"].values()]
    assert refinements == [None] * 3 if bare else all(refinements)
    one = record["direct_mean"]["fan8_1e5"]
    assert one["any scan"]["direct_mean"]["psnr_db"] != one["fan8_1e5"]["direct_mean"]["psnr_db"]
    text = (work / "out" / f"{name}.md").read_text()
    assert "| trained for | parallel8_1e5 | fan8_1e5 | s |" in text and " of 1 |" in text


def test_one_specialist_has_no_other_to_be_compared_with(script):
    found = {"a": {"any scan": [30.0, 31.0], "a": [30.5, 31.4]}}
    ((name, own, best, beaten),) = script("specialist_refinements").differences(found)
    assert name == "a" and own.startswith("-0.45") and (best, beaten) == ("", "0 of 0")


def test_kinds_of_guidance_share_their_base_with_the_specialist(script, monkeypatch, work):
    module = script("guidance_kinds")
    _run(module, monkeypatch, work, "--scan", "parallel8_1e5", "--kinds", "fbp", "split", "--samples", "1")
    record = json.loads((work / "out" / "guidance_kinds.json").read_text())
    rows = record["rows"]
    for worth in record["worth_hu"].values():
        assert max(worth["fbp"], worth["split"]) <= worth["without"]  # the best multiple may be zero
    assert rows["split"]["config"]["guidance_steps"] == 5 and "guidance_steps" not in rows["fbp"]["config"]
    assert len(list((work / "heads").iterdir())) == 2


def test_every_refinement_is_measured_on_every_scan(small_refinements, monkeypatch, work, capsys):
    module = small_refinements
    options = ("--scans", "parallel8_1e5", "fan8_1e5", "--batches", "2", "--finetune", "1", "2")
    _run(module, monkeypatch, work, *options)
    record = json.loads((work / "out" / "specialist_refinements.json").read_text())
    for scan in ("parallel8_1e5", "fan8_1e5"):
        assert list(record["psnr_db"][scan]) == ["any scan", "parallel8_1e5", "fan8_1e5"]
        assert len(record["tv_psnr_db"][scan]) == 2
        assert record["psnr_db"][scan]["any scan"] != record["tv_psnr_db"][scan]
        for steps in (1, 2):
            fitted = record["finetuned"][str(steps)][scan]
            assert fitted["training_steps"] == steps
            assert fitted["psnr_db"] != record["psnr_db"][scan]["any scan"]
    assert "| TV alone |" in (work / "out" / "specialist_refinements.md").read_text()
    capsys.readouterr()
    _run(module, monkeypatch, work, *options)
    assert "trained" not in capsys.readouterr().out.replace("trained for", "").replace("trained on", "")
