"""The experiment with scans that differ from what the methods assume."""

from __future__ import annotations

import importlib
import json

import pytest
from markdown_tables import unpadded
from tiny_pack import write_tiny_pack

from deft_ct.evaluation.statistics import Interval

VIEWS = 16


@pytest.fixture
def script(repository_root, monkeypatch):
    """The experiment, imported as its own folder would."""
    monkeypatch.syspath_prepend(str(repository_root / "benchmarks" / "experiments"))
    return importlib.import_module("robustness")


def test_the_verdict_needs_an_interval_on_one_side_of_zero(script):
    def beyond(low: float, high: float) -> str:
        return script.verdict(Interval(mean=(low + high) / 2, low=low, high=high, n=3, confidence=0.95))

    assert [beyond(-2, -1), beyond(1, 2), beyond(-1, 1)] == ["more", "less", "no clear difference"]


@pytest.mark.filterwarnings("ignore:shifted detector")  # it is, in one case
def test_the_tables_hold_paired_changes_and_finished_cells_are_kept(script, tmp_path, monkeypatch):
    named = {case.name: case for case in script.CASES}
    chosen = (script.EXACT, "1/10 of the photons", "1/10 of the photons, told", "detector off by 1 element")
    monkeypatch.setattr(script, "CASES", tuple(named[name] for name in chosen))
    monkeypatch.setitem(script.METHODS, "TV", "tv:iterations=10")
    source, out = write_tiny_pack(tmp_path / "val.h5", count=1), tmp_path / "out"
    command = ["--data", str(source), "--every", "1", "--scan", f"parallel{VIEWS}_1e4", "--method", "TV"]
    command += ["--method", "FBP", "--work", str(tmp_path / "work"), "--out", str(out)]
    for _ in range(2):
        script.main(command)
        monkeypatch.setattr(script, "score", None)  # the second run measures nothing
    record = json.loads((out / "robustness.json").read_text())
    assert len(record["slices"]) == 8
    values = {(cell["case"], cell["method"]): cell["values"]["psnr_db"] for cell in record["slices"]}
    row = next(r for r in record["against_exact"] if (r["case"], r["method"]) == (chosen[3], "FBP"))
    exact, off = values[script.EXACT, "FBP"], values[chosen[3], "FBP"]
    mean = sum(a - b for a, b in zip(off, exact, strict=True)) / 2
    assert row["psnr_change_db"]["mean"] == pytest.approx(mean) and mean < 0
    low, high = row["psnr_change_db"]["low"], row["psnr_change_db"]["high"]
    assert low < mean < high
    text = unpadded((out / "robustness.md").read_text())
    assert f"| {chosen[3]} | FBP | {sum(off) / 2:.2f} |" in text and f"{mean:+.2f} ({low:+.2f} to {high:+.2f})" in text
    # FBP takes no account of the noise level: told or not, the image is the same.
    (told,) = (r for r in record["against_told"] if r["method"] == "FBP")
    assert told["against"] == chosen[2] and told["psnr_change_db"]["mean"] == 0
