"""The benchmark of few steps, from end to end in the small."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from markdown_tables import unpadded
from tiny import tiny_htransform, tiny_prior
from tiny_pack import write_tiny_pack

from deft_ct.diffusion import save_prior
from deft_ct.methods.deft import save_htransform

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "experiments" / "few_steps.py"


def test_samples_and_direct_means_are_both_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior = tiny_prior()
    save_prior(prior, tmp_path / "prior")
    save_htransform(tiny_htransform(prior), tmp_path / "head")
    pack = write_tiny_pack(tmp_path / "val.h5", count=1)
    options = {
        "--data": pack, "--every": 1, "--scan": "parallel12_1e5", "--steps": 2, "--kinds": "dpm-solver:1",
        "--grids": "log_snr", "--samples": 2, "--draws": 1, "--prior": tmp_path / "prior",
        "--htransform": tmp_path / "head", "--out": tmp_path / "out",
    }  # fmt: skip
    main = runpy.run_path(str(SCRIPT))["main"]
    main([str(part) for item in options.items() for part in item])
    capsys.readouterr()
    sampled, direct = json.loads((tmp_path / "out" / "few_steps.json").read_text())["cells"]
    assert sampled["result"]["evaluations_per_slice"] == 4
    assert set(sampled["result"]["means"]) == {"1", "2"}
    assert sampled["result"]["means"]["1"] == sampled["result"]["single"]
    assert direct["result"]["evaluations_per_slice"] == 1
    text = unpadded((tmp_path / "out" / "few_steps.md").read_text())
    assert "| PSNR (dB) of the mean of N samples | 1 | 2 |" in text
    assert "| gain of exact samples on one | +0.00 | +1.25 |" in text
    assert "| 1 draws | 1 |" in text
