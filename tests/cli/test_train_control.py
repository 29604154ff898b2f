"""``deft-ct train htransform --loss`` without images, on a tiny pack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny_prior
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.diffusion import save_prior
from deft_ct.methods.deft import load_htransform


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    save_prior(tiny_prior(), tmp_path / "prior")
    write_tiny_pack(tmp_path / "train.h5", count=2)
    options = {
        "--data": tmp_path / "train.h5", "--prior": tmp_path / "prior", "--out": tmp_path / "run", "--channels": "32",
        "--initial-reconstruction": "fbp", "--steps": 2, "--batch-size": 2, "--paths": 2, "--path-steps": 3,
    }  # fmt: skip
    return ["train", "htransform", "--no-progress", *(str(part) for option in options.items() for part in option)]


@pytest.mark.parametrize("objective", ["log-variance", "trajectory-balance"])
def test_a_head_is_trained_without_images(command: list[str], objective: str) -> None:
    result = CliRunner().invoke(app, [*command, "--loss", objective, "--scan", "parallel12_1e5"])
    assert result.exit_code == 0, result.output
    head = load_htransform(json.loads(result.output.splitlines()[-1])["model"])
    assert head.card["control"] == {"objective": objective, "steps": 3, "paths": 2}
    assert head.card["measurements"] == 4
    assert head.card["scan"]["views"] == 12


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--loss", "magic"], "'magic' is not one of 'denoising'"),
        (["--loss", "log-variance", "--scan", "parallel12_1e5", "--scan", "parallel10_1e5"], "one scan"),
        (["--loss", "log-variance", "--any-scan"], "one scan"),
    ],
)
def test_bad_options_are_refused(command: list[str], more: list[str], message: str) -> None:
    result = CliRunner().invoke(app, [*command, *more])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
