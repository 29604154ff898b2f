"""``deft-ct benchmark diff``, by its function."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import typer
from benchmark_rows import METRICS, benchmark_rows
from typer.testing import CliRunner

from deft_ct.cli.benchmark_diff import benchmark_diff

app = typer.Typer()
app.command()(benchmark_diff)


def stored(folder: Path, rows: pd.DataFrame) -> str:
    folder.mkdir()
    rows.to_parquet(folder / "results.parquet")
    (folder / "metrics.json").write_text(json.dumps([asdict(metric) for metric in METRICS]))
    return str(folder)


def test_two_folders_are_compared(tmp_path: Path) -> None:
    rows = benchmark_rows({"fbp": 26.0, "tv": 31.0})
    better = rows.assign(psnr_db=rows["psnr_db"] + 0.5)
    done = CliRunner().invoke(app, [stored(tmp_path / "a=1", rows), stored(tmp_path / "b", better)])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("+0.50 [+0.50, +0.50]") == 2 and "better" in done.stdout
    assert "bias in body" not in done.stdout  # not in the table


def test_folders_without_a_finished_benchmark_are_named(tmp_path: Path) -> None:
    fine = stored(tmp_path / "a", benchmark_rows({"tv": 31.0}))
    empty = CliRunner().invoke(app, [fine, str(tmp_path)])
    assert empty.exit_code == 2 and "holds no finished benchmark (results.parquet is missing)" in empty.stderr
    (tmp_path / "a" / "results.parquet").write_bytes(b"PAR1 not really PAR1")
    damaged = CliRunner().invoke(app, [fine, fine])
    assert damaged.exit_code == 2 and "no benchmark that can be read" in damaged.stderr
