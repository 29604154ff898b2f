"""The experiment with damaged data, in the small."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from tiny_pack import write_tiny_pack

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.problems.ct import CTProblem

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "experiments" / "data_faults.py"))


def test_the_table_has_every_fault_and_what_was_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack, out = write_tiny_pack(tmp_path / "val.h5", count=1), tmp_path / "table.json"
    command = ["--data", str(pack), "--every", "1", "--scan", "parallel24_1e5", "--method", "fbp", "--json", str(out)]
    SCRIPT["main"](command)
    rows = {row["fault"]: row["fbp"] for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {*SCRIPT["FAULTS"], "golden angle"}
    assert rows["views shuffled"]["rmse_hu"] == pytest.approx(rows["nominal"]["rmse_hu"], rel=0.01)
    assert "wrong sign" in rows["y = -y"]["warnings"] and "counts not logged" in rows["counts"]["warnings"]
    assert "n = 2 slices" in capsys.readouterr().out


def test_a_fault_changes_only_what_it_says(tmp_path: Path) -> None:
    pack = CTPack(write_tiny_pack(tmp_path / "val.h5", count=1))
    (batch, *_) = CTProblem(pack, Scan.from_name("parallel24_1e5"), batch_size=1).batches
    dead = SCRIPT["FAULTS"]["one dead element (0)"](batch)
    changed = (dead.y != batch.y).flatten(0, -2).any(0).nonzero().flatten().tolist()
    assert changed == [batch.y.shape[-1] // 3] and dead.measurement is batch.measurement
    mixed = SCRIPT["FAULTS"]["views shuffled"](batch)
    x = torch.rand(1, 1, *batch.measurement.operator.domain_shape)
    before, after = batch.measurement.operator(x), mixed.measurement.operator(x)
    order = [int((before[0, 0] - row).abs().sum(-1).argmin()) for row in after[0, 0]]
    torch.testing.assert_close(mixed.y, batch.y[..., order, :])


def test_alarms_on_clean_data_are_counted(tmp_path: Path) -> None:
    pack, out = write_tiny_pack(tmp_path / "val.h5", count=1), tmp_path / "alarms.json"
    SCRIPT["main"](["--data", str(pack), "--every", "1", "--false-alarms", "--json", str(out)])
    found = json.loads(out.read_text())
    assert found["slice_scans"] == 2 * len(SCRIPT["SCANS"]) and found["alarmed"] <= found["slice_scans"]
