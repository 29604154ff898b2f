"""The suites whose data users bring, on files in the published layouts, with fast methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deft_ct.evaluation.parquet_store import read_rows
from deft_ct.workflows.benchmark import run_suite
from deft_ct.workflows.suite import read_suite
from tests.problems.test_ct_kinds import _series as write_series
from tests.problems.test_ct_measured import _htc as write_htc
from tests.support.lodopab_layout import write_lodopab_layout

FAST: dict[str, Any] = {"methods": ["fbp", "sirt:iterations=2"]}


def run(name: str, out: Path, **overrides: Any) -> list[tuple[str, str, int]]:
    """Problem, method and number of finished rows of a suite."""
    _, failed = run_suite(read_suite(name, overrides=FAST | overrides), out)
    assert not failed
    rows = read_rows(out)
    assert (rows["status"] == "ok").all() and np.isfinite(rows["data_residual"]).all()
    return [(*key, len(group)) for key, group in rows.groupby(["problem", "method"], sort=False)]


@pytest.fixture
def aapm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k, patient in enumerate(("L067", "L506")):
        write_series(tmp_path / "aapm" / patient / "full_1mm", 10 * k + 1, 40.0 + k, slices=11)
    monkeypatch.setenv("AAPM", str(tmp_path / "aapm"))


def test_lodopab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lodopab_layout(tmp_path / "lodopab", "test", (0, 1776, 3552))
    monkeypatch.setenv("LODOPAB", str(tmp_path / "lodopab"))
    found = run("lodopab", tmp_path / "out", data=["lodopab:$LODOPAB:test:views=20"], every=1776)
    assert [count for _, _, count in found] == [3, 3]
    rows = read_rows(tmp_path / "out")
    assert list(rows["image_id"]) == 2 * ["0", "1776", "3552"] and {"psnr_db", "psnr_fr_db", "ssim"} <= {*rows.columns}
    assert "n = 3 of 3,553" in (tmp_path / "out" / "summary.md").read_text()


@pytest.mark.usefixtures("aapm")
def test_aapm_sparse(tmp_path: Path) -> None:
    found = run("aapm-sparse", tmp_path / "out")
    scans = read_suite("aapm-sparse").scans or ()
    assert found == [(scan, method, 2) for scan in scans for method in FAST["methods"]]
    assert set(read_rows(tmp_path / "out")["patient"]) == {"L506"}


@pytest.mark.usefixtures("aapm")
def test_dm4ct(tmp_path: Path) -> None:
    found = run("dm4ct", tmp_path / "out")
    settings = [f"dm4ct-{number}" for number in ("i", "ii", "iii", "iv", "v")]
    assert found == [(setting, method, 2) for setting in settings for method in FAST["methods"]]


def test_htc2022(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "htc"
    root.mkdir()
    write_htc(root, "htc2022_ta", "full", np.arange(0, 360.5, 0.5), "full_")
    write_htc(root, "htc2022_01a", "limited", np.arange(75, 165.5, 0.5), "")
    monkeypatch.setenv("HTC2022", str(root))
    found = run("htc2022", tmp_path / "out", data=["htc2022:$HTC2022:size=64"])
    assert [(method, count) for _, method, count in found] == [("fbp", 2), ("sirt:iterations=2", 2)]
    assert read_rows(tmp_path / "out")["challenge_score"].between(-1, 1).all()
