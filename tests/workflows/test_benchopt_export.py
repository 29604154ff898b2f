"""The export for benchopt: its layout, and that benchopt runs it where it is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from tiny_pack import write_tiny_pack

from deft_ct.evaluation.runner import run_benchmark
from deft_ct.workflows.benchmark import build_benchmark
from deft_ct.workflows.benchopt_export import SuiteParts, export_benchopt
from deft_ct.workflows.suite import Suite, read_suite


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    pack = write_tiny_pack(tmp_path / "val.h5")
    return Suite(
        data=(str(pack),), scans=("parallel16_1e5_48bins",), batch_size=3, name="tiny",
        methods=("fbp", {"method": "sirt", "options": {"iterations": 3}}),
    )  # fmt: skip


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_layout_and_the_suite(suite: Suite, tmp_path: Path) -> None:
    folder = tmp_path / "benchmark_ct"
    export_benchopt(suite, folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == ["README.md", "datasets/problem.py", "objective.py", "solvers/method.py", "suite.yaml"]
    assert read_suite(folder / "suite.yaml") == suite
    for name in ("objective.py", "datasets/problem.py", "solvers/method.py"):
        compile((folder / name).read_text(), name, "exec")
    with pytest.raises(FileExistsError):
        export_benchopt(suite, folder)
    export_benchopt(suite, folder, overwrite=True)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"mine\.txt, which this program did not write"):
        export_benchopt(suite, folder, overwrite=True)


def test_the_numbers_are_those_of_the_benchmark(suite: Suite, tmp_path: Path) -> None:
    export_benchopt(suite, tmp_path / "b")
    rows = run_benchmark(build_benchmark(suite), tmp_path / "run")
    parts = SuiteParts(tmp_path / "b" / "suite.yaml")
    [problem] = parts.names()
    for method in ("fbp", "sirt:iterations=3"):
        found = parts.judge(problem, parts.reconstruct(problem, method))
        expected = np.mean([row["psnr_db"] for row in rows if row["method"] == method])
        assert found["psnr_db"] == pytest.approx(expected, rel=1e-6)
    assert parts.judge(problem, parts.truth(problem))["rmse_body_hu"] == 0
    with pytest.raises(ValueError, match="has no problem 'other'; it has"):
        parts.check("other")


def test_its_classes_are_those_that_benchopt_wants(suite: Suite, tmp_path: Path) -> None:
    pytest.importorskip("benchopt", reason="benchopt is not installed")
    folder = tmp_path / "b"
    export_benchopt(suite, folder)
    dataset, solver = load(folder / "datasets" / "problem.py").Dataset, load(folder / "solvers" / "method.py").Solver
    objective = load(folder / "objective.py").Objective
    for found in (dataset, solver, objective):
        assert found.name and "pip::deft-ct[benchmark]" in found.requirements
    assert solver.parameters == {"method": ["fbp", "sirt:iterations=3"]} and len(dataset.parameters["problem"]) == 1


@pytest.mark.slow
def test_benchopt_runs_it(suite: Suite, tmp_path: Path) -> None:
    pytest.importorskip("benchopt", reason="benchopt is not installed")
    folder = tmp_path / "benchmark_ct"
    export_benchopt(suite, folder)
    subprocess.run(
        [sys.executable, "-m", "benchopt", "run", folder, "-n", "1", "-r", "1", "--no-plot", "--no-html",
         "--output", "found"],
        check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, timeout=500,
    )  # fmt: skip
    [path] = folder.rglob("found*.parquet")
    table = pd.read_parquet(path)
    rows = pd.DataFrame(run_benchmark(build_benchmark(suite), tmp_path / "run"))
    for method, expected in rows.groupby("method")["psnr_db"].mean().items():
        found = table[table["solver_name"].str.contains(str(method).split(":")[0])]["objective_psnr_db"]
        assert found.to_numpy() == pytest.approx(expected, rel=1e-6)
