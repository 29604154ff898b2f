"""The group of all commands: ``--traceback`` at any place, and no failure outside the contract of ``cli.errors``."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deft_ct.cli.errors import SHOW_TRACEBACK, one_line_errors

FLAG = "--traceback"


class Commands(TyperGroup):
    """A group whose commands end in one line whatever happens, also while options are read or results printed."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run a command.

        Args:
            args: the words after the name of the program; those of the process if None.
            more: as of ``TyperGroup.main``.
            extra: as of ``TyperGroup.main``.
        """
        _print_anything()
        return super().main(_flag_first(sys.argv[1:] if args is None else args), *more, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command of a context; see :func:`~deft_ct.cli.errors.one_line_errors`."""
        with one_line_errors():
            return super().invoke(ctx)


def set_traceback(
    traceback: Annotated[
        bool, typer.Option(FLAG, help="Also print the traceback of an error. It may stand after the command, too.")
    ] = False,
) -> None:
    """Options of the program, before the command."""
    SHOW_TRACEBACK.set(traceback)


def _flag_first(words: Sequence[str]) -> list[str]:
    """The words with the flag in front, where the group looks for it; it keeps its place after ``--``."""
    end = words.index("--") if "--" in words else len(words)
    before = [word for word in words[:end] if word != FLAG]
    return [*([FLAG] if len(before) < end else []), *before, *words[end:]]


def _print_anything() -> None:
    """Print characters that the terminal cannot show as escapes: a finished job must not fail at its last line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):  # closed
                stream.reconfigure(errors="backslashreplace")
