"""The experiment with mismatched noise: same data, two likelihoods."""

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

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "experiments" / "noise_mismatch.py"))


def test_the_constant_variance_is_the_mean_of_the_poisson_variances(tmp_path: Path) -> None:
    problem = CTProblem(CTPack(write_tiny_pack(tmp_path / "val.h5", count=1)), Scan(views=8, photons=1e3), batch_size=1)
    flat = SCRIPT["with_constant_variance"](problem)
    for (y, poisson, _), (same, white, _) in zip(problem.batches, flat.batches, strict=True):
        assert same is y
        variance = poisson.noise.weights(y).reciprocal().mean()
        torch.testing.assert_close(white.noise.weights(y), variance.reciprocal().expand_as(y))


def test_the_table_gives_each_likelihood_its_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack, out = write_tiny_pack(tmp_path / "val.h5", count=1), tmp_path / "figures.json"
    command = ["--data", str(pack), "--every", "1", "--photons", "300", "--views", "16"]
    command += ["--method", "tv:strength=30|3000,iterations=20", "--json", str(out)]
    SCRIPT["main"](command)
    output = capsys.readouterr().out
    assert "n = 2 slices, 16 parallel views, seed 0" in output
    (row,) = json.loads(out.read_text())["rows"]
    assert row["photons"] == 300 and len(row["weighted"]["values"]["psnr_db"]) == 2
    # Two variants for each likelihood; the better of the two is kept.
    lines = [line for line in output.splitlines() if line.startswith("300 photons")]
    assert len(lines) == 2 and all("strength=" in line for line in lines)
