"""No failure of a command is a traceback: one line, a status from the table, and ``--traceback`` for more."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from deft_ct.cli import app, errors
from deft_ct.cli.errors import MOST_CHARACTERS, one_line

ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Strange(Exception):  # noqa: N818
    """An error of a kind that nobody expects."""


STATUS = [
    (ValueError("the size is wrong"), 2, "error: the size is wrong"),
    (OSError(errno.ENOSPC, "No space left on device", "/out/a"), 2, "No space left on device: '/out/a'"),
    (ImportError("install deft-ct[tune]"), 2, "error: install deft-ct"),
    (FloatingPointError("dps diverged"), 2, "error: dps diverged"),
    (MemoryError(), 2, "error: out of memory"),
    (ValueError(), 2, "error: ValueError"),
    (RuntimeError("mat1 and mat2 differ"), 1, "error: unexpected RuntimeError: mat1 and mat2 differ; `deft-ct --trace"),
    (KeyError("x"), 1, "error: unexpected KeyError: 'x'"),
    (RecursionError("too deep"), 1, "unexpected RecursionError"),
    (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError"),
    (AssertionError(), 1, "unexpected AssertionError: no message"),
    (Strange("[red]:smile: \\["), 1, "unexpected Strange: [red]:smile: \\["),
]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("deft_ct.cli.reconstruct.reconstruct_series", broken)


@pytest.mark.parametrize(("error", "status", "line"), STATUS, ids=[f"{type(e).__name__}-{s}" for e, s, _ in STATUS])
def test_every_error_is_one_line_with_its_status(
    error: Exception, status: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, error)
    result = run("reconstruct", tmp_path, "--out", tmp_path / "out")
    text = ANSI.sub("", result.output)
    assert result.exit_code == status and line in text
    assert text.count("\n") == 1 and text.startswith("error: ") and "Traceback" not in text
    assert isinstance(result.exception, SystemExit)


def test_the_table_of_statuses_is_the_one_in_the_help() -> None:
    assert (errors.UNEXPECTED, errors.REFUSED, errors.INTERRUPTED) == (1, 2, 130)
    shown = " ".join(run("--help").output.split())
    assert "Exit status: 0 done, 1 unexpected error, 2 refused, 130 interrupted." in shown and "--traceback" in shown
    for status, words in ((0, "done"), (1, "nobody foresaw"), (2, "does not allow it"), (130, "interrupted")):
        assert re.search(rf"\* {status}: .*{words}", errors.__doc__ or "")


@pytest.mark.parametrize("place", ["first", "last", "middle"])
def test_traceback_is_printed_where_it_is_asked_for(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, KeyError("lost"))
    words = ["reconstruct", tmp_path, "--out", tmp_path / "out"]
    words.insert({"first": 0, "last": 4, "middle": 2}[place], "--traceback")
    result = run(*words)
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.output and "in broken" in result.output
    assert result.output.splitlines()[-1].startswith("error: unexpected KeyError: 'lost'")
    quiet = run("reconstruct", tmp_path, "--out", tmp_path / "out")  # it does not stay on
    assert quiet.exit_code == 1 and "Traceback" not in quiet.output


def test_traceback_after_the_end_of_options_is_an_argument() -> None:
    result = run("reconstruct", "--out", "o", "--", "--traceback")
    assert result.exit_code == 2 and "--traceback" in result.output and "Traceback" not in result.output


def test_failures_outside_of_a_command_are_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise KeyError("a broken plugin")

    monkeypatch.setattr("deft_ct.cli.info.methods", broken)  # `info` catches nothing by itself
    result = run("info")
    assert result.exit_code == 1 and ANSI.sub("", result.output).startswith("error: unexpected KeyError")
    assert result.output.count("\n") == 1


def test_interruptions_say_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, KeyboardInterrupt())
    result = run("reconstruct", tmp_path, "--out", tmp_path / "out")
    told = "interrupted: finished slices of a series are kept; run the same command again to resume\n"
    assert result.exit_code == 130 and ANSI.sub("", result.output) == told


def test_messages_are_safe_for_a_terminal() -> None:
    assert one_line("a\nb\t c\r\n") == "a b c"
    assert one_line("a\x1b[2J\x07\x9b\u202eb") == "a\\x1b[2J\\x07\\x9b\\u202eb"
    assert one_line(b"caf\xe9.dcm".decode("utf-8", "surrogateescape")) == "caf\\udce9.dcm"
    assert one_line("Größe 😀") == "Größe 😀"
    assert len(one_line("x" * 10**6)) == MOST_CHARACTERS + 3


@pytest.mark.parametrize("name", [b"caf\xe9", "Größe".encode(), b"\x1b[31mred", b"\n\n", b"[/bold]", b":smile:"])
def test_any_file_name_in_any_terminal(name: bytes, tmp_path: Path, repository_root: Path) -> None:
    """In a process of its own, with a terminal that knows ASCII only."""
    missing = os.fsencode(tmp_path) + b"/" + name
    program = "import sys, deft_ct.cli.errors as e, deft_ct.cli.commands as c\nc._print_anything()\n"
    program += "with e.one_line_errors():\n    open(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(repository_root), "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(
        [sys.executable, "-c", program, missing], env=environment, capture_output=True, timeout=120, check=False
    )
    first = done.stderr.splitlines()[0]
    assert first.startswith(b"error: ") and b"No such file" in first and b"\x1b[31m" not in first


def test_a_reader_that_goes_away_is_no_error(repository_root: Path) -> None:
    program = "import os; r, w = os.pipe(); os.dup2(w, 1); os.close(r)\n"
    program += "from deft_ct.cli import app; app(['info'])"
    environment = {**os.environ, "PYTHONPATH": str(repository_root)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr and "error:" not in done.stderr
