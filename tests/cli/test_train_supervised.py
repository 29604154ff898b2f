"""``deft-ct train`` of the supervised methods on a tiny pack, and the options that its commands share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.cli.groups import grouped
from deft_ct.methods.registry import method_class

UNET = ["--channels", "32", "--patch", "2"]
COMMANDS = {
    "fbp-unet": UNET,
    "learned-primal-dual": ["--iterations", "2", "--features", "4"],
    "conditional": UNET,
    "i2sb": UNET,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_is_trained_for_several_scans(tmp_path: Path, name: str) -> None:
    write_tiny_pack(tmp_path / "train.h5", count=2)
    arguments = ["train", name, "--data", str(tmp_path / "train.h5"), "--out", str(tmp_path / "run"), "--steps", "2"]
    arguments += ["--batch-size", "2", "--scan", "parallel12_1e5", "--scan", "parallel8_1e4_120deg", "--no-progress"]
    result = CliRunner().invoke(app, [*arguments, *COMMANDS[name]])
    assert result.exit_code == 0, result.output
    trained = method_class(name.replace("-", "_"))
    model = trained.model_type.load(json.loads(result.output.splitlines()[-1])["model"])  # type: ignore[attr-defined]
    assert model.card["scan"]["views"] == [8, 12]
    assert model.card["scan"]["degrees"] == [120.0, 180.0]
    assert model.card["training_steps"] == 2


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    width: Annotated[int, typer.Option(help="Width.")] = 3
    height: Annotated[int, typer.Option(help="Height.")] = 4


def _command() -> tuple[typer.Typer, list[object]]:
    seen: list[object] = []
    tool = typer.Typer()

    @tool.command()
    @grouped
    def main(
        name: Annotated[str, typer.Option()],
        sizes: _Sizes = _Sizes(height=7),
        deep: Annotated[bool, typer.Option()] = False,
    ) -> None:
        """Do it."""
        seen.extend([name, sizes, deep])

    return tool, seen


def test_options_of_a_group_are_given_one_by_one_with_the_defaults_of_the_command() -> None:
    tool, seen = _command()
    result = CliRunner().invoke(tool, ["--name", "a", "--width", "5"])
    assert result.exit_code == 0, result.output
    assert seen == ["a", _Sizes(width=5, height=7), False]


def test_an_unknown_option_of_a_group_is_refused() -> None:
    tool, _ = _command()
    assert CliRunner().invoke(tool, ["--name", "a", "--sizes", "5"]).exit_code == 2
