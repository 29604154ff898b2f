"""`deft-ct benchmark` and `compare`: from a suite to tables, resumed, with failures as rows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import h5py
import pandas as pd
import pytest
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.evaluation.execution import Processes, RayCluster, Slurm
from deft_ct.evaluation.parquet_store import read_rows
from deft_ct.workflows import benchmark
from deft_ct.workflows.benchmark import SuiteRun

SCAN = "parallel16_1e5_48bins"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_tiny_pack(tmp_path / "val.h5")


@pytest.fixture
def suite(pack: Path, tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(
        f"data: {pack}\nscans: [{SCAN}, parallel12_1e5_48bins]\nseeds: [0, 7]\nbatch_size: 3\n"
        "methods:\n  - fbp\n  - method: tv\n    options: {iterations: 3}\n    label: TV\n"
    )
    return path


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, re.sub(r"\x1b\[[0-9;]*m", "", result.output)


@pytest.mark.parametrize("library", ["pandas", "pyarrow", "jinja2"])
def test_a_missing_library_is_named_before_any_work(
    library: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is needed for the page alone, at the end."""
    monkeypatch.setitem(sys.modules, library, None)
    out = tmp_path / "out"
    code, text = invoke("compare", "--data", pack, "--scan", SCAN, "--method", "fbp", "--out", out, "--no-progress")
    assert code == 2 and f"{library} is not installed: pip install 'deft-ct[benchmark]'" in text
    assert not out.exists() or not list(out.iterdir())
    if library != "jinja2":
        code, text = invoke("benchmark", "diff", tmp_path / "a", tmp_path / "b")
        assert code == 2 and "pip install 'deft-ct[benchmark]'" in text


def test_a_suite_is_run_and_resumed(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text = invoke("benchmark", suite, "--out", out, "--no-progress", "--limit", 4)
    assert code == 0 and "not for clinical use" in text, text
    rows = read_rows(out)
    assert len(rows) == 2 * 2 * 2 * 4 and set(rows["seed"]) == {0, 7} and set(rows["method"]) == {"fbp", "TV"}
    assert rows.groupby("seed")["psnr_db"].mean().nunique() == 2  # another noise draw
    assert f"### {SCAN} on val.h5" in (out / "summary.md").read_text() and "PSNR and SSIM: whole slice" in text
    code, text = invoke("benchmark", "run", suite, "--out", out, "--no-progress")
    assert code == 0 and f"{SCAN}, seed 0: fbp 4 of 8 were measured before" in text, text
    assert len(read_rows(out)) == 2 * len(rows)
    code, text = invoke("benchmark", suite, "--out", out, "--no-progress")
    assert code == 0 and text.count("was measured before") == 8 and "(batch" not in text
    code, text = invoke("benchmark", suite, "--out", out, "--no-progress", "--overwrite")
    assert code == 0 and "measured before" not in text


def test_one_failing_method_gives_rows_and_a_status(pack: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", "--data", pack, "--every", 4, "--scan", SCAN, "--out", out, "--no-progress", "--samples", 1]
    words += ["--method", "fbp", "--method", "ddrm", "--method", "sirt:iterations=3"]
    for _ in range(2):
        code, text = invoke(*words)
        assert code == 2
        last = text.strip().splitlines()[-1]
        assert last.startswith(f"error: ddrm failed on 2 of 2 images of val.h5, {SCAN}: ddrm needs the singular value")
        table = read_rows(out).groupby("method", sort=False)["status"].agg(set).to_dict()
        assert table == {"fbp": {"ok"}, "ddrm": {"failed"}, "sirt:iterations=3": {"ok"}}
        record = json.loads((out / "comparison.json").read_text())
        assert [cell["failed"] for cell in record["cells"]] == [0, 2, 0]
        assert "ddrm" in (out / "summary.md").read_text()


def test_data_under_the_same_name_are_measured_anew(pack: Path, tmp_path: Path) -> None:
    words = ["compare", "--data", pack, "--every", 1, "--scan", SCAN, "--method", "fbp", "--no-progress", "--out"]
    assert invoke(*words, tmp_path / "out")[0] == 0
    with h5py.File(pack, "r+") as file:
        for group in file.values():
            group["hu"][...] = group["hu"][...] // 2
    code, text = invoke(*words, tmp_path / "out")
    assert code == 0 and "measured before" not in text
    assert invoke(*words, tmp_path / "fresh")[0] == 0
    costs = ["seconds", "peak_memory_mib"]
    tables = [read_rows(tmp_path / name).drop(columns=costs) for name in ("out", "fresh")]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing",), "no suite 'nothing': not a file, and the shipped ones are"),
        (("SUITE", "--ray", "local", "--slurm", "timeout_min=5"), "--ray and --slurm exclude each other"),
        (("SUITE", "--slurm", "timeout_min"), "expected option=value in 'timeout_min'"),
        (("SUITE", "--data", "/nowhere/x.h5"), "no such data pack"),
        (("lodopab",), "data needs the environment variable LODOPAB"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    words: tuple[str, ...], message: str, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LODOPAB", raising=False)
    chosen = [suite if word == "SUITE" else word for word in words]
    code, text = invoke("benchmark", *chosen, "--out", tmp_path / "out")
    assert code == 2 and message in text.strip().splitlines()[-1] and text.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_where_it_runs_is_an_option(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SuiteRun] = []

    def stop(*arguments: object) -> None:
        seen.append(arguments[2])  # type: ignore[arg-type]
        raise ValueError("seen")

    monkeypatch.setattr("deft_ct.cli.benchmark.run_suite", stop)
    out = tmp_path / "out"
    for words in ((), ("--workers", 3), ("--ray", "auto"), ("--slurm", "timeout_min=5,cluster=local", "--workers", 2)):
        assert invoke("benchmark", suite, "--out", out, *words)[0] == 2
    assert [how.engine for how in seen] == [
        None, Processes(3), RayCluster("auto", workers=1, gpus=0.0),
        Slurm(out / "slurm", workers=2, options={"timeout_min": 5, "cluster": "local"}),
    ]  # fmt: skip


def test_methods_without_networks_are_left_out_only_if_nobody_named_them(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deft_ct.networks.storage.ModelFormat.shipped", lambda _: [])
    monkeypatch.setattr(benchmark, "default_methods", lambda: ["fbp", "fbp_unet"])
    words = ["compare", "--data", pack, "--every", 4, "--scan", SCAN, "--out", tmp_path / "out", "--no-progress"]
    code, text = invoke(*words)
    assert code == 0 and "left out: fbp_unet" in text, text
    assert set(read_rows(tmp_path / "out")["method"]) == {"fbp"}
    assert invoke(*words, "--method", "fbp_unet")[0] == 2


def test_a_single_image_has_a_mean_without_an_interval(pack: Path, tmp_path: Path) -> None:
    words = ["compare", "--data", pack, "--scan", SCAN, "--limit", 1, "--method", "fbp", "--no-progress"]
    code, text = invoke(*words, "--out", tmp_path / "one")
    assert code == 0 and "nan" not in text.lower() and "±" not in text, text
    words[words.index("--limit") + 1] = 2
    code, text = invoke(*words, "--every", 4, "--out", tmp_path / "two")
    assert code == 0 and "±" in text
