"""The experiment on flicker: its numbers on images whose flicker is known, and one tiny run."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from markdown_tables import unpadded
from tiny_pack import write_tiny_pack

from deft_ct.datasets.slices import CTSlice

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "experiments" / "flicker.py"


def test_independent_errors_flicker_and_shared_ones_do_not() -> None:
    flicker = runpy.run_path(str(SCRIPT))["flicker"]
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 50, (6, 64, 64))
    truth[:, :8] = -1000.0  # air
    alone, shared = rng.normal(0, 30, truth.shape), np.broadcast_to(rng.normal(0, 30, truth.shape[1:]), truth.shape)
    found = flicker(truth + alone, truth)
    assert found["rmse"] == pytest.approx(30, rel=0.02) and abs(found["correlation"]) < 0.02
    assert found["flicker"] == pytest.approx((1 + (30 / 50) ** 2) ** 0.5, rel=0.01)
    found = flicker(truth + shared, truth)
    assert found["flicker"] == pytest.approx(1) and found["correlation"] == pytest.approx(1)
    worse_air = truth + shared + np.where(truth < -900, alone * 100, 0)
    assert flicker(worse_air, truth) == found


def test_runs_are_neighbours_at_the_smallest_distance() -> None:
    runs = runpy.run_path(str(SCRIPT))["runs"]

    def one(group: str, z: float) -> CTSlice:
        return CTSlice(hu=torch.zeros(1, 2, 2), pixel_mm=1.0, group=group, index=int(z), position=0, z_mm=z)

    places = [0.0, 5.0, 6.0, 7.0, 8.0, 20.0, 21.0]
    found = runs([*(one("a", z) for z in reversed(places)), one("b", 0.0), one("b", 1.0)], most=3)
    assert [[each.z_mm for each in run] for run in found] == [[5.0, 6.0, 7.0]]


def test_a_tiny_run_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = write_tiny_pack(tmp_path / "val.h5")
    main = runpy.run_path(str(SCRIPT))["main"]
    main(["--data", str(pack), "--method", "fbp", "--out", str(tmp_path / "out")])
    record = json.loads((tmp_path / "out" / "flicker.json").read_text())
    assert len(record["runs"]) == 2 and set(record["runs"][0]["fbp"]) == {"rmse", "flicker", "correlation"}
    text = unpadded((tmp_path / "out" / "flicker.md").read_text())
    assert "| fbp |" in text and "2 runs of 8 neighbouring slices" in text and capsys.readouterr().out


def test_methods_are_added_to_a_table_of_the_same_slices(tmp_path: Path) -> None:
    with_stored = runpy.run_path(str(SCRIPT))["with_stored"]
    common = {"side": 8, "photons": 1e5, "pack": "p", "slices": 4, "seed": 0, "precision": "float32"}
    path = tmp_path / "flicker.json"
    path.write_text(json.dumps(common | {"methods": ["a", "b"], "runs": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}))
    found = with_stored(common | {"methods": ["b", "c"], "runs": [{"b": 5, "c": 6}, {"b": 7, "c": 8}]}, path)
    assert found["methods"] == ["a", "b", "c"] and found["runs"] == [{"a": 1, "b": 5, "c": 6}, {"a": 3, "b": 7, "c": 8}]
    with pytest.raises(ValueError, match=r"something else \(slices, seed\)"):
        with_stored(common | {"slices": 5, "seed": 1, "methods": ["c"], "runs": []}, path)
