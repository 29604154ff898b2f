"""Every option of `reconstruct` and `demo` with bad values: one error message, status 2, and OUT is not touched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import leaf_commands
from typer.testing import CliRunner

from deft_ct.cli import app

ANSI = re.compile(r"\x1b\[[0-9;]*m")
BAD = (
    "nan", "inf", "-inf", "-1", "0", "1e308", "1e-320", "2.5", "1" + "0" * 30, "9" * 5000, "", " ", "é", "[/red]", "\0",
    "\x1b[2J", "x" * 5000, "1_0", "0x10", "\u0661",
)  # fmt: skip
NEEDED = {"reconstruct": ["no-such-series"], "finetune": ["--data", "no-such-data"]}
SKIPPED = {"help", "out", "progress"}

CASES = [
    (path, parameter)
    for path, command in leaf_commands(typer.main.get_command(app))
    if path in ("reconstruct", "demo")
    for parameter in command.params
    if parameter.param_type_name == "option" and parameter.name not in SKIPPED
    if not getattr(parameter, "is_flag", False)
]


def test_the_options_are_found() -> None:
    assert len(CASES) >= 18 and len({path for path, _ in CASES}) == 2


@pytest.mark.parametrize(("command", "option"), CASES, ids=[f"{path} {p.opts[0]}" for path, p in CASES])
def test_a_bad_value_is_one_error(command: str, option: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no data, so that a value which is no error by itself ends there, too, and no work begins."""

    def stop(*_: object, **__: object) -> None:
        raise ValueError("no such data")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deft_ct.cli.demo.reconstruct_series", stop)
    for value in BAD:
        words = [*command.split(), *NEEDED.get(command, []), "--out", "out"]
        if option.opts[0] != "--data" and command not in NEEDED and command != "demo":
            words += ["--data", "no-such-data"]
        words += [option.opts[0], *[value] * option.nargs]
        result = CliRunner().invoke(app, words)
        text = ANSI.sub("", result.output)
        assert result.exit_code == 2, (value[:40], text[-600:], result.exception)
        assert sum(line.startswith(("error: ", "╭─ Error ─")) for line in text.splitlines()) == 1, (value[:40], text)
        assert "Traceback" not in text and "\x1b[2J" not in result.output
        assert not list(tmp_path.iterdir()), value[:40]
