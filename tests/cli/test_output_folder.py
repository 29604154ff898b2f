"""OUT that cannot be written is found before any work, by every command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from commands import leaf_commands
from typer.testing import CliRunner

from deft_ct.cli import app

COMMANDS = [
    path
    for path, command in leaf_commands(typer.main.get_command(app))
    if any("--out" in parameter.opts for parameter in command.params)
]
NEEDED = {"reconstruct": ["no-such-series"], "finetune": ["--data", "no-such-data"], "benchmark run": ["no-such-suite"]}


def test_the_commands_that_write() -> None:
    assert set(COMMANDS) >= {"reconstruct", "demo", "compare", "tune", "calibrate", "finetune", "train prior"}


@pytest.mark.parametrize("command", COMMANDS)
def test_it_comes_first(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and networks do not exist, and the error is about OUT all the same."""
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    places: list[tuple[Any, str]] = [
        (tmp_path / "file", "is a file; name a folder"), (tmp_path / "file" / "a", "is a file; name another"),
        ("/proc/deft-ct/out", "cannot write to /proc"), ("", "--out is empty"), (" ", "--out is empty"),
        (tmp_path / ("x" * 300), ""), ("a\0b", ""),
    ]  # fmt: skip
    for out, message in places:
        words = [*command.split(), *NEEDED.get(command, []), "--out", str(out)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, (out, result.output, result.exception)
        assert " ".join(message.split()) in " ".join(result.output.replace("│", " ").split()), result.output
        assert "Traceback" not in result.output and "no-such" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"
