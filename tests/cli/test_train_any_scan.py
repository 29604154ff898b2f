"""``deft-ct train htransform --any-scan`` on a tiny pack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny_htransform, tiny_prior
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.cli import training_options as command
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import save_prior
from deft_ct.methods.deft import load_htransform, load_refinement, save_htransform
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES
from deft_ct.training import TrainingConfig


@pytest.mark.filterwarnings("ignore:the initial h-transform:UserWarning")
def test_a_head_for_any_scan_goes_on_from_one_for_one_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GEOMETRIES", 3)
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
    monkeypatch.setattr(command, "GEOMETRIES", 3)
    save_prior(tiny_prior(), tmp_path / "prior")
    write_tiny_pack(tmp_path / "train.h5")
    common = ["--data", str(tmp_path / "train.h5"), "--scan", "parallel12_1e5", "--any-start", "--steps", "1"]
    common += ["--batch-size", "2", "--batches", "1", "--tv-iterations", "2", "--channels", "32,32", "--no-progress"]

    def train(kind: str, *more: str) -> object:
        return CliRunner().invoke(app, ["train", kind, *common, "--out", str(tmp_path / kind), *more])

    refused = train("refinement")
    assert refused.exit_code == 2 and "give --any-scan, too" in refused.output
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
    card = command.card_of(scans, pack, TrainingConfig(steps=1))
    assert card["scan"]["degrees"] == parallel
    assert card["scan"].get("fan_degrees") == fan


def test_the_card_tells_where_limited_arcs_start(tmp_path: Path) -> None:
    pack = CTPack(write_tiny_pack(tmp_path / "train.h5"))
    here, there = (Scan.from_name(f"parallel60_1e5_120deg_from{start}") for start in (30, 75))
    training = TrainingConfig(steps=1)
    assert command.card_of([here], pack, training)["scan"]["start_degrees"] == [30]
    assert command.card_of([there, here], pack, training)["scan"]["start_degrees"] == [30, 75]
    assert command.card_of([here], pack, training, command.family_of(True, False))["scan"]["start_degrees"] == [0, 30]
    assert "start_degrees" not in command.card_of([Scan()], pack, training)["scan"]
