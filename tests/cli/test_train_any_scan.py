"""``deft-ct train htransform --any-scan`` on a tiny pack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny_htransform, tiny_prior
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.cli import train as command
from deft_ct.htransform import load_htransform, save_htransform
from deft_ct.htransform.features import SPREAD_SLOPES
from deft_ct.priors import save_prior


@pytest.mark.filterwarnings("ignore:the initial h-transform:UserWarning")
def test_a_head_for_any_scan_goes_on_from_one_for_one_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_GEOMETRIES", 3)
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
    assert scan["photons"] == [1e4, 1e6]
    assert scan["geometry"] == ["fan", "parallel"]
    assert scan["name"] == ["parallel12_1e5", "parallel10_1e5_80deg"]
    assert head.prior_hash != old.prior_hash
