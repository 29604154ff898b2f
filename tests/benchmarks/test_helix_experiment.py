"""The experiment with helical raw data: its table, on a tiny scan."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "experiments" / "helix.py"))


def test_the_table_has_every_method_beside_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = replace(SCRIPT["BASE"], views_per_turn=60, columns=40, column_mm=12.0, rows=8, row_mm=4.4, turns=2.0)
    monkeypatch.setitem(SCRIPT["CASES"], "pitch 1.0", tiny)
    out = tmp_path / "helix.json"
    SCRIPT["main"](["--case", "pitch 1.0", "--size", "32", "--method", "fbp", "--json", str(out)])
    (row,) = json.loads(out.read_text())["rows"]
    assert row["fbp"]["rmse"] < 3 * row["circular limit"]["rmse"]
    table = capsys.readouterr().out.splitlines()[-3:]
    assert "circular limit: RMSE (HU)" in table[0] and f"{row['fbp']['rmse']:.1f}" in table[2]
