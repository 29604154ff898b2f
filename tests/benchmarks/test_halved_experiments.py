"""The experiments on halved slices, each from end to end in the small."""

from __future__ import annotations

import importlib
import json

import pytest
from markdown_tables import unpadded
from tiny import tiny_prior
from tiny_pack import write_tiny_pack

from deft_ct.ct.scan_range import ScanRange
from deft_ct.diffusion import Prior, save_prior
from deft_ct.networks import UNet, UNetConfig
from deft_ct.workflows.experiments.refinements import RefinementSettings

# The tiny slices are coarse, and half the detector sees them differently from what the noise model says.
# Networks of random weights explain no data.
pytestmark = pytest.mark.filterwarnings("ignore:more noise than assumed", "ignore:data not explained")


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


def _run(module, work, *options):
    command = ["--work", str(work), "--out", str(work / "out"), "--steps", "1", "--every", "1"]
    module.main([*command, "--batch-size", "2", "--precision", "float32", *options])


@pytest.mark.slow
def test_the_ablations_can_be_taken_up_again(script, work, capsys):
    module = script("ablations")
    options = ("--scan", "parallel8_1e5", "--samplers", "20 DPM")
    _run(module, work, *options)
    record = json.loads((work / "out" / "ablations.json").read_text())
    assert [name for name in record["rows"] if name in module.PAPER] == list(module.PAPER)
    assert record["rows"]["conjugate gradients for g"]["config"]["guidance"] == "cg"
    for row in record["rows"].values():
        assert len(row["20 DPM"]["single"]["psnr_db"]["per_slice"]) == 2
    assert "n = 2 slices" in (work / "out" / "ablations.md").read_text()
    capsys.readouterr()
    _run(module, work, *options)
    assert "one core" not in capsys.readouterr().out
    assert json.loads((work / "out" / "ablations.json").read_text())["rows"] == record["rows"]


def test_small_heads_start_from_random_weights(script, monkeypatch, work):
    module = script("ablations")
    monkeypatch.setattr(module, "SMALL", (32,))  # the shape of the prior here, so that only the start differs
    found = {}
    for name, options in {"ablations": (), "ablations_small": ("--small",)}.items():
        options += ("--scan", "parallel8_1e5", "--samplers", "20 DPM", "--heads", "A* y")
        _run(module, work, *options)
        found[name] = json.loads((work / "out" / f"{name}.json").read_text())
        assert list(found[name]["rows"]) == ["full", "A* y"]
    usual, small = (record["rows"]["full"] for record in found.values())
    assert usual["config"] == small["config"] and usual["sha256"] != small["sha256"]
    assert "Networks: small, from random weights" in (work / "out" / "ablations_small.md").read_text()


@pytest.fixture
def small(script, monkeypatch):
    """Imports an experiment with refinements whose networks, tables and scans are small."""
    settings = RefinementSettings(
        network=UNetConfig(patch=2, channels=(32, 32), attention=(False, False), norm_groups=8), tv_iterations=3,
        scans=ScanRange(views=(6, 9)), geometries=2,
    )  # fmt: skip

    def load(name):
        module = script(name)
        monkeypatch.setattr(module, "SETTINGS", settings)
        return module

    return load


@pytest.mark.parametrize("bare", [False, True], ids=["refined", "bare"])
def test_every_head_is_measured_on_every_scan(small, work, bare):
    module, name = small("specialists"), "specialists_bare_1" if bare else "specialists_1"
    options = ("--scans", "parallel8_1e5", "fan8_1e5", "--refinement-steps", "1", "--batches", "1")
    _run(module, work, *options, *["--bare"] * bare)
    record = json.loads((work / "out" / f"{name}.json").read_text())
    assert {name: list(row) for name, row in record["direct_mean"].items()} == {
        scan: ["any scan", "parallel8_1e5", "fan8_1e5"] for scan in ("parallel8_1e5", "fan8_1e5")
    }
    refinements = [head["config"].get("refinement") for head in record["heads"].values()]
    assert refinements == [None] * 3 if bare else all(refinements)
    one = record["direct_mean"]["parallel8_1e5"]  # the one batch of "any scan" shows the fan
    assert one["any scan"]["direct_mean"]["psnr_db"] != one["parallel8_1e5"]["direct_mean"]["psnr_db"]
    text = unpadded((work / "out" / f"{name}.md").read_text())
    assert "| trained for | parallel8_1e5 | fan8_1e5 | s |" in text and " of 1 |" in text


def test_kinds_of_guidance_share_their_base_with_the_specialist(script, work):
    module = script("guidance_kinds")
    _run(module, work, "--scan", "parallel8_1e5", "--kinds", "fbp", "split", "--samples", "1")
    record = json.loads((work / "out" / "guidance_kinds.json").read_text())
    rows = record["rows"]
    for worth in record["worth_hu"].values():
        assert max(worth["fbp"], worth["split"]) <= worth["without"]  # the best multiple may be zero
    assert rows["split"]["config"]["guidance_steps"] == 5 and "guidance_steps" not in rows["fbp"]["config"]
    assert len(list((work / "heads").iterdir())) == 2


def test_every_refinement_is_measured_on_every_scan(small, work, capsys):
    module = small("specialist_refinements")
    options = ("--scans", "parallel8_1e5", "fan8_1e5", "--batches", "2", "--finetune", "1", "2", "--norm-groups", "8")
    _run(module, work, *options)
    record = json.loads((work / "out" / "specialist_refinements.json").read_text())
    for scan in ("parallel8_1e5", "fan8_1e5"):
        assert list(record["psnr_db"][scan]) == ["any scan", "parallel8_1e5", "fan8_1e5"]
        assert len(record["tv_psnr_db"][scan]) == 2
        assert record["psnr_db"][scan]["any scan"] != record["tv_psnr_db"][scan]
        for steps in (1, 2):
            fitted = record["finetuned"][str(steps)][scan]
            assert fitted["training_steps"] == steps
            assert fitted["psnr_db"] != record["psnr_db"][scan]["any scan"]
    assert "| TV alone |" in unpadded((work / "out" / "specialist_refinements.md").read_text())
    capsys.readouterr()
    _run(module, work, *options)
    assert "trained" not in capsys.readouterr().out.replace("trained for", "").replace("trained on", "")
