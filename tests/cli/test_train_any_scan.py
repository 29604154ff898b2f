"""``deft-ct train htransform --any-scan`` on a tiny pack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import tiny_htransform, tiny_prior
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import save_prior
from deft_ct.methods.deft import load_htransform, load_refinement, save_htransform
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel
from deft_ct.workflows import training_setup
from deft_ct.workflows.train_networks import primal_dual_for_any_scan
from deft_ct.workflows.training_setup import TrainingData, random_scans


@pytest.mark.filterwarnings("ignore:the initial h-transform:UserWarning")
def test_a_head_for_any_scan_goes_on_from_one_for_one_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_setup, "GEOMETRIES", 3)
    prior = tiny_prior()
    save_prior(prior, tmp_path / "prior")
    old = tiny_htransform(tiny_prior(seed=2))
    save_htransform(old, tmp_path / "old")
    write_tiny_pack(tmp_path / "train.h5")
    options = {
        "--data": tmp_path / "train.h5", "--prior": tmp_path / "prior", "--initial": tmp_path / "old",
        "--channels": "32,32", "--steps": 2, "--batch-size": 2, "--out": tmp_path / "run",
    }  # fmt: skip
    result = CliRunner().invoke(
        app,
        ["train", "htransform", "--any-scan", "--scan", "parallel12_1e5", "--scan", "parallel10_1e5_80deg"]
        + [str(part) for option in options.items() for part in option]
        + ["--no-progress"],
    )
    assert result.exit_code == 0, result.output
    head = load_htransform(json.loads(result.output.splitlines()[-1])["model"])
    assert head.config.scan_features
    assert head.config.spread_slopes == SPREAD_SLOPES
    scan = head.card["scan"]
    assert scan["views"] == [10, 200]  # the family's 15 to 200 and the named scans
    assert scan["degrees"] == [80, 180]
    assert scan["fan_degrees"] == [90, 360]
    assert scan["photons"] == [1e4, 1e6]
    assert scan["geometry"] == ["fan", "parallel"]
    assert scan["name"] == ["parallel12_1e5", "parallel10_1e5_80deg"]
    assert head.prior_hash != old.prior_hash


def test_networks_for_arcs_from_anywhere_are_told_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_setup, "GEOMETRIES", 3)
    save_prior(tiny_prior(), tmp_path / "prior")
    write_tiny_pack(tmp_path / "train.h5")
    common = ["--data", str(tmp_path / "train.h5"), "--scan", "parallel12_1e5", "--any-start", "--steps", "1"]
    common += ["--batch-size", "2", "--batches", "1", "--tv-iterations", "2", "--channels", "32,32", "--no-progress"]

    def train(kind: str, *more: str) -> object:
        return CliRunner().invoke(app, ["train", kind, *common, "--out", str(tmp_path / kind), *more])

    refused = train("refinement")
    assert refused.exit_code == 2 and "also give --any-scan" in refused.output
    first = train("refinement", "--any-scan")
    assert first.exit_code == 0, first.output
    made = load_refinement(tmp_path / "refinement" / "refinement")
    assert made.config.arc_direction and made.card["scan"]["start_degrees"] == "any"
    second = train(
        "htransform", "--any-scan", "--prior", str(tmp_path / "prior"),
        "--refinement", str(tmp_path / "refinement" / "refinement"),
    )  # fmt: skip
    assert second.exit_code == 0, second.output
    head = load_htransform(tmp_path / "htransform" / "htransform")
    assert head.config.arc_direction and head.card["scan"]["start_degrees"] == "any"


@pytest.mark.parametrize(
    ("names", "parallel", "fan"),
    [
        (["fan60_1e5"], 180.0, None),  # of one scan the card holds the dictionary
        (["fan60_1e5_240deg"], 180.0, 240.0),
        (["fan60_1e5_240deg", "fan60_1e5"], [180.0, 180.0], [240.0, 360.0]),
        (["parallel60_1e5_120deg", "fan60_1e5"], [120.0, 120.0], [360.0, 360.0]),
    ],
)
def test_the_card_tells_the_arcs_of_fans_from_those_of_parallel_beams(
    tmp_path: Path, names: list[str], parallel: object, fan: object
) -> None:
    write_tiny_pack(tmp_path / "train.h5")
    scans, pack = [Scan.from_name(name) for name in names], CTPack(tmp_path / "train.h5")
    card = TrainingData(slices=pack, scans=scans).scan_card()
    assert card["degrees"] == parallel
    assert card.get("fan_degrees") == fan


def test_the_card_tells_where_limited_arcs_start(tmp_path: Path) -> None:
    pack = CTPack(write_tiny_pack(tmp_path / "train.h5"))
    here, there = (Scan.from_name(f"parallel60_1e5_120deg_from{start}") for start in (30, 75))

    def card(*scans: Scan, random: bool = False) -> dict[str, object]:
        data = TrainingData(slices=pack, scans=scans, scan_range=random_scans(random, False))
        return data.scan_card()

    assert card(here)["start_degrees"] == [30]
    assert card(there, here)["start_degrees"] == [30, 75]
    assert card(here, random=True)["start_degrees"] == [0, 30]
    assert "start_degrees" not in card(Scan())


def test_primal_dual_for_any_scan_starts_from_one_for_fixed_scans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_setup, "GEOMETRIES", 2)
    write_tiny_pack(tmp_path / "train.h5")
    common = ["train", "learned-primal-dual", "--data", str(tmp_path / "train.h5"), "--scan", "parallel12_1e5"]
    common += ["--steps", "1", "--batch-size", "2", "--iterations", "2", "--features", "4", "--no-progress"]
    first = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "one")])
    assert first.exit_code == 0, first.output
    small = PrimalDualModel.load(tmp_path / "one" / "model")
    assert not small.shape.scan_features and small.card["scan"]["views"] == 12
    more = ["--any-scan", "--any-start", "--initial", str(tmp_path / "one" / "model"), "--out", str(tmp_path / "any")]
    second = CliRunner().invoke(app, [*common, *more])
    assert second.exit_code == 0, second.output
    made = PrimalDualModel.load(tmp_path / "any" / "model")
    assert made.shape.scan_features and made.card["scan"]["start_degrees"] == "any"
    again = CliRunner().invoke(app, [*common, *more])
    assert again.exit_code == 0 and again.output.splitlines()[-1] == second.output.splitlines()[-1], again.output
    larger = primal_dual_for_any_scan(small)
    assert made.card["initial_sha256"] == larger.content_hash()
    kept = larger.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in small.state_dict().items())
