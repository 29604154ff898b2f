"""Help as documentation: a screen of commands, and an example that can be typed at the top of each of them."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from commands import leaf_commands
from typer.testing import CliRunner

from deft_ct.cli import app

COMMANDS = dict(leaf_commands(typer.main.get_command(app)))
COLUMNS, LINES = 80, 34
"""Of a screen: a terminal of usual width, and what a laptop shows of it without scrolling."""


def test_the_list_of_commands_fits_on_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("TERM", "dumb")
    shown = CliRunner().invoke(app, ["--help"])
    lines = shown.output.splitlines()
    assert shown.exit_code == 0 and len(lines) <= LINES, shown.output
    listed = lines[next(number for number, line in enumerate(lines) if " Commands " in line) + 1 : -2]
    names = [line.strip("|│ ").partition(" ")[0] for line in listed]
    assert set(names) == {path.split()[0] for path in COMMANDS}, "a summary does not fit into its line"
    assert len(names) == len(set(names))


def example_of(command: Any) -> str:
    """The second paragraph of a help text, after the line that says what the command does."""
    summary, example, *_ = [*(command.help or "").split("\n\n"), "", ""]
    assert "\n" not in summary.strip(), "the first paragraph is one line"
    found = re.fullmatch(r"Example: `(deft-ct .*)`", example.strip())
    assert found is not None, f"the second paragraph is an example, got {example!r}"
    return found[1]


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_help_starts_with_an_example_whose_options_exist(path: str) -> None:
    command = COMMANDS[path]
    words = shlex.split(example_of(command))[1:]
    names = path.split()
    if words[: len(names)] != names:  # `benchmark SUITE` is short for `benchmark run SUITE`
        assert path == "benchmark run" and words[0] == "benchmark"
        names = ["benchmark"]
    context = command.make_context(path, [], resilient_parsing=True)
    values, _, _ = command.make_parser(context).parse_args(args=words[len(names) :])
    needed = [parameter.name for parameter in command.params if parameter.required]
    assert [name for name in needed if values.get(name) in (None, ())] == []
