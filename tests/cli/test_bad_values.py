"""Every option of every command with bad values: one line that names it, status 2, no long work, and OUT untouched."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.testing
from commands import leaf_commands
from tiny_backbones import write_backbones
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.cli.commands import CheckedCommand

ANSI = re.compile(r"\x1b\[[0-9;]*m")
BAD = (
    "nan", "inf", "-inf", "-1", "0", "1e308", "1e-320", "2.5", "1" + "0" * 30, "9" * 5000, "", " ", "é", "[/red]", "\0",
    "\x1b[2J", "x" * 5000, "1_0", "0x10", "\u0661",
)  # fmt: skip
QUICK = ("nan", "inf", "-1", "1e308", "1" + "0" * 30, "", "\x1b[2J", "x" * 5000)
"""Those that every run of the tests tries; the others are for the slow runs."""

SKIPPED = {"help", "out", "benchopt", "licence", "progress"}
ON_DISK = {
    "--prior", "--htransform", "--initial", "--refinement", "--table", "--calibration", "--preset-folder", "--report",
    "--model", "--second", "--larger",
}  # fmt: skip
"""What these name is looked for after the data, so the data must be there."""

GOOD: dict[str, set[str]] = {
    "--start": {"0", "2.5", "1e-320"}, "--degrees": {"2.5"}, "--photons": {"0", "2.5", "1_0"}, "--compare": {"", " "},
    "--seed": {"-1", "0"}, "--momentum": {"0", "1e-320"}, "--ema-decay": {"0", "1e-320"},
    "--max-minutes": {"0", "1e308", "1e-320", "2.5", "1" + "0" * 30}, "--refinement-steps": {"0"}, "--batches": {"0"},
    "--pixel-mm": {"2.5"}, "--noise": {"0", "1e-320", "2.5"}, "--attention": {"\u0661"}, "--panels": {"0"},
    "--typical-error": {"2.5"}, "--tolerance": {"2.5"}, "--samples": {"0"}, "--folds": {"0"},
}  # fmt: skip
"""Values among the bad ones that are good for an option; the command then goes on and finds no data."""
TEN = "1_0"
"""Python, and so Typer, reads it as 10, which is good for most numbers."""

SECOND = {("benchmark diff", "b"), ("verify", "series_folder"), ("data distance", "restored")}
"""Arguments after a folder that is not there, which is named first."""
COMMANDS = dict(leaf_commands(typer.main.get_command(app)))
CASES = [
    (path, parameter)
    for path, command in COMMANDS.items()
    for parameter in command.params
    if parameter.name not in SKIPPED and not getattr(parameter, "is_flag", False)
    if path != "reconstruct" or parameter.param_type_name == "option"
    if (path, parameter.name) not in SECOND
]


def test_the_options_are_found() -> None:
    assert len(CASES) >= 150 and len({path for path, _ in CASES}) >= 12
    assert {type(command) for command in COMMANDS.values()} == {CheckedCommand}


@cache
def _tree() -> Any:
    return typer.main.get_command(app)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The commands are described to Typer once, and work that begins is an error of the test."""

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(typer.testing, "_get_command", lambda _: _tree())
    monkeypatch.delenv("DEFT_CT_DATA", raising=False)
    monkeypatch.setattr("deft_ct.cli.demo.reconstruct_series", begun)
    for name in ("workflows.benchmark.run_benchmark", "training.loop._fit", "methods.deft.initial_table._batch"):
        monkeypatch.setattr(f"deft_ct.{name}", begun)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def _words(command: str, parameter: Any, value: str, pack: Path) -> list[str]:
    name = parameter.opts[0]
    known = {option for item in COMMANDS[command].params for option in item.opts}
    words = [*command.split(), *(["--out", "out"] if "--out" in known else [])]
    words += _arguments(command, parameter)
    if command == "restore":  # it needs a degradation, and its usual method a prior
        words += [] if name in ("--operator", "--mask", "--kernel") else ["--operator", "sr4"]
        words += [] if name == "--method" else ["--method", "tv"]
    if command == "scaffold" and name != "--contig":
        words += ["--contig", "2,A1-4,2"]
    if "--data" in known and name != "--data":
        chains = command == "train amortised"
        there = (
            (write_backbones(pack.with_name("chains.h5")) if chains else pack) if name in ON_DISK else "no-such-data.h5"
        )
        words += ["--data", f"backbones:{there}" if chains else str(there)]
        words += ["--initial", "no-such-prior"] if chains and name != "--initial" else []
    if parameter.param_type_name != "option":
        return [*words, "--", value]
    if name == "--table":
        words += ["--batches", "1"]
    return [*words, name, *[value] * parameter.nargs]


def _arguments(command: str, parameter: Any) -> list[str]:
    """Words for the arguments of a command: all of them for an option, those before it for one of them."""
    given = {"reconstruct": "no-such-series", "benchmark run": "ct256"}.get(command, "no-such-data.h5")
    arguments = [item for item in COMMANDS[command].params if item.param_type_name == "argument"]
    before = arguments[: arguments.index(parameter)] if parameter in arguments else arguments
    return [given for item in before if item.required or command == "reconstruct"]


def _try(command: str, parameter: Any, values: tuple[str, ...], folder: Path) -> None:
    pack, name = write_tiny_pack(folder / "pack.h5", count=1), parameter.opts[0]
    for value in values:
        if command == "demo" and (
            value == TEN or value in GOOD.get(name, ())
        ):  # the one command that has its data at hand, so its work begins
            continue
        result = CliRunner().invoke(app, _words(command, parameter, value, pack))
        text = " ".join(ANSI.sub("", result.output).replace("│", " ").split())
        told = (command, name, value[:40], text[-600:], result.exception)
        assert result.exit_code == 2, told
        assert text.count("error: ") + text.count("╭─ Error ─") == 1, told
        assert "Traceback" not in text and "\x1b[2J" not in result.output, told
        shown = value.encode("unicode_escape").decode() if not value.isprintable() else value
        names = {name, parameter.name, name.lstrip("-").replace("-", "_"), parameter.metavar or name}
        named = any(word in text for word in names) or (value.strip() and shown[:20] in text)
        if "no-such-data" in text or "no-such-series" in text:
            good = value in GOOD.get(name, ()) or value == TEN or name in ("--series", "--phase")
            assert good, told
        else:
            assert named, told
        assert not list(Path.cwd().iterdir()), told


@pytest.mark.parametrize(("command", "parameter"), CASES, ids=[f"{path} {p.opts[0]}" for path, p in CASES])
def test_a_bad_value_is_one_error(command: str, parameter: Any, tmp_path: Path) -> None:
    _try(command, parameter, QUICK, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "parameter"), CASES, ids=[f"{path} {p.opts[0]}" for path, p in CASES])
def test_any_bad_value_is_one_error(command: str, parameter: Any, tmp_path: Path) -> None:
    _try(command, parameter, BAD, tmp_path)
