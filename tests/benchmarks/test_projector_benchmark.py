"""The benchmark of the ray transform: it can be resumed, names what is missing, and says where we are slower."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown_tables import unpadded

from deft_ct.report.projector_timings import SLOWER, timings_markdown


def run(root: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-W", "ignore", str(root / "benchmarks" / "speed" / "ray_transform.py"), "--pixels", "16",
            "--views", "4", "--peers", "skimage", "deepinv", "--backends", "auto", "unheard-of", "--threads", "1",
            "--rounds", "1", "--out", str(out), *options,
        ],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def test_a_second_run_resumes_where_the_first_stopped(repository_root, tmp_path):
    out = tmp_path / "times"
    first = run(repository_root, out, "--batches", "1")
    assert first.returncode == 0, first.stderr
    cell = json.loads(out.with_suffix(".json").read_text())["cells"][0]
    assert {"skimage", "auto"} <= {record["key"] for record in cell["times"]}
    assert "unknown backend" in cell["left_out"]["unheard-of"]
    table = unpadded(out.with_suffix(".md").read_text())
    assert "| 16 | 4 | 1 | matrix |" in table
    assert "unheard-of (unknown backend" in table

    second = run(repository_root, out, "--batches", "1", "3")
    assert second.returncode == 0, second.stderr
    cells = json.loads(out.with_suffix(".json").read_text())["cells"]
    assert [c["batch"] for c in cells] == [1, 3]
    assert cells[0] == cell  # not timed again
    assert "batch 1:" not in second.stderr

    other = run(repository_root, out, "--batches", "5", "--rounds", "2")
    assert other.returncode != 0
    assert "made with other rounds" in other.stderr


def test_processor_time_is_of_one_thread(repository_root, tmp_path):
    out = tmp_path / "times"
    done = run(repository_root, out, "--batches", "1", "--processor-time")
    assert done.returncode == 0, done.stderr
    assert json.loads(out.with_suffix(".json").read_text())["clock"] == "processor"
    assert "forward / adjoint (processor time)." in out.with_suffix(".md").read_text()
    assert "made with other clock" in run(repository_root, out, "--batches", "2").stderr
    refused = run(repository_root, tmp_path / "other", "--processor-time", "--threads", "2")
    assert refused.returncode == 2 and "it needs --threads 1" in refused.stderr


def record(key: str, forward: float, adjoint: float, threads: int = 2, backend: str | None = None) -> dict[str, Any]:
    return {
        "name": key, "key": key, "threads": threads, "backend": backend, "slices": 1, "forward": forward,
        "adjoint": adjoint, "samples": 1, "memory_mb": None,
    }  # fmt: skip


@pytest.mark.parametrize(("ours", "flagged"), [(1.0, False), (3.5, True)])
def test_a_cell_where_astra_is_faster_is_flagged(ours, flagged):
    times = [
        record("astra", 6.0, 4.0, 1), record("astra", 3.0, 2.0, 2), record("odl", 12.0, 9.0, 1),
        record("mbirjax", 8.0, 10.0, 0), record("auto", ours, 1.0, 2, "joseph"),
    ]  # fmt: skip
    cell = {
        "pixels": 16, "views": 4, "batch": 1, "times": times, "left_out": {}, "floor_ms": 0.1, "sgemm_gflops": 1.0,
        "read_gb_per_s": 1.0, "other_load_cores": 0.0,
    }  # fmt: skip
    text = timings_markdown(
        {"threads": 2, "machine": "m", "packages": {}, "rounds": 1, "seconds": 1.0, "cells": [cell]}
    )
    assert (SLOWER in text) is flagged
    assert ("slower than ASTRA in none of 1 cells" in text) is not flagged
    if not flagged:  # joseph: 6 and 3 times slower ASTRA forward, 4 and 2 adjoint; the fastest peer in each direction
        assert "joseph | 1.00 / 1.00 | 6.0x / 4.0x | 3.0x / 2.0x | 8.0x (mbirjax) / 9.0x (odl)" in unpadded(text)
