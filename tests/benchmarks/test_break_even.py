"""The table of break-even points."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "speed" / "break_even.py"))


def _cell(label: str, seconds: float, *, prior: bool = True) -> dict[str, object]:
    values = {"seconds_per_slice": seconds, "evaluations_per_slice": 1.0, "psnr_db": [30.0, 32.0]}
    return {"label": label, "values": values, "provenance": {"prior_sha256": "0"} if prior else {}}


def test_the_break_even_point_is_where_both_cost_the_same() -> None:
    assert SCRIPT["break_even"](100.0, 0.5, 1.0) == 200
    assert math.isinf(SCRIPT["break_even"](100.0, 0.5, 0.5))


def test_the_table_leaves_out_methods_without_the_prior() -> None:
    cells = [_cell("deft", 0.5), _cell("dps", 5.5), _cell("dds", 0.4), _cell("tv", 0.1, prior=False)]
    text = SCRIPT["markdown"](cells, 3600.0, "comparison.json")
    table = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    rows = {name: values for name, *values in table}
    assert "tv" not in rows
    assert rows["deft"] == ["31.00", "0.50", "1.0", "-", "1.01", "1.14", "2.39"]
    assert rows["dps"][2:4] == ["11.0", "720"]
    assert rows["dds"][3] == "never"
    with pytest.raises(ValueError, match="holds no row 'deft'"):
        SCRIPT["markdown"](cells[1:], 3600.0, "comparison.json")
