"""``deft-ct benchmark diff``, by its function, on two small benchmarks."""

from __future__ import annotations

from pathlib import Path

import typer
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli.benchmark_diff import benchmark_diff
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.runner import run_benchmark
from deft_ct.evaluation.worker import Benchmark
from deft_ct.methods.registry import load_reconstructor
from deft_ct.problems.ct import CTProblem

app = typer.Typer()
app.command()(benchmark_diff)


def test_two_folders_are_compared(tmp_path: Path) -> None:
    problem = CTProblem(CTPack(write_tiny_pack(tmp_path / "val.h5")), Scan(views=8, detectors=48), refine=1)
    for name, cutoff in (("a=1", 1.0), ("b", 0.2)):
        methods = {"fbp": load_reconstructor("fbp", cutoff=cutoff), "cgls": load_reconstructor("cgls", iterations=3)}
        run_benchmark(Benchmark([problem], [methods]), tmp_path / name)
    done = CliRunner().invoke(app, [str(tmp_path / "a=1"), str(tmp_path / "b")])
    assert done.exit_code == 0, done.output
    psnr = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if "| PSNR (dB)" in line}
    assert "+0.00 [+0.00, +0.00]" in psnr["cgls"] and "open" in psnr["cgls"]
    assert "+0.00" not in psnr["fbp"] and "config.cutoff: 1.0 -> 0.2" in psnr["fbp"]
    assert "8 / 2" in psnr["fbp"] and "bias in body" not in done.stdout


def test_a_folder_without_a_benchmark_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [str(tmp_path), str(tmp_path)])
    assert done.exit_code == 2 and "holds no benchmark" in done.stderr
