"""``deft-ct prior import``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adm import ADMConfig, random_adm
from typer.testing import CliRunner, Result

from deft_ct.cli import app
from deft_ct.diffusion import load_prior


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, ["prior", "import", *map(str, words)])


def test_a_checkpoint_becomes_a_folder(tmp_path: Path) -> None:
    network = random_adm(ADMConfig())
    torch.save(network.state_dict(), tmp_path / "model.pt")
    result = _run(
        tmp_path / "model.pt", "--out", tmp_path / "prior", "--head-channels", 16, "--image-size", 32, "--low", -1000,
        "--high", 2000, "--licence", "MIT",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    prior = load_prior(tmp_path / "prior")
    assert prior.content_hash()[:16] in result.output
    assert prior.card == {"source": "model.pt", "licence": "MIT"} and prior.image_shape == (1, 32, 32)
    assert prior.value_range is not None and (prior.value_range.low, prior.value_range.high) == (-1000, 2000)
    x, t = torch.randn(1, 1, 16, 16), torch.tensor([300])
    with torch.no_grad():  # stored in float16
        torch.testing.assert_close(prior.eps(x, t), network(x, t), rtol=0, atol=5e-3)
    again = _run(tmp_path / "model.pt", "--out", tmp_path / "prior", "--head-channels", 16)
    assert again.exit_code == 2 and "--overwrite" in again.output
    assert json.loads((tmp_path / "prior/deft_ct.json").read_text())["sha256"] == prior.content_hash()


@pytest.mark.parametrize(
    ("words", "problem"),
    [(["none.pt"], "no such file or folder"), (["model.pt", "--low", 0], "pass both --low and --high"),
     (["model.pt", "--head-channels", 48], "pass the num_head_channels"), (["model.pt", "--beta-end", 3], "beta_end")],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(words: list[object], problem: str, tmp_path: Path) -> None:
    torch.save(random_adm(ADMConfig()).state_dict(), tmp_path / "model.pt")
    result = _run(tmp_path / str(words[0]), *words[1:], "--out", tmp_path / "prior")
    assert result.exit_code == 2 and problem in result.output.replace("\n", " ")
    assert not list((tmp_path / "prior").glob("*"))
