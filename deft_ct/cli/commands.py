"""The group of all commands: ``--traceback`` at any place, and no failure outside the contract of ``cli.errors``.

Every command is a :class:`CheckedCommand`: values that no option can take are refused with the name of the option.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from deft_ct.cli.errors import SHOW_TRACEBACK, one_line_errors
from deft_ct.runtime.fields import LARGEST_COUNT

FLAG = "--traceback"
MAY_BE_EMPTY = {"compare", "out"}
"""``--compare ''`` compares with nothing, and ``--out`` says by itself what it needs."""

_COMPLETION = {
    "install_completion": "Install completion for your shell.",
    "show_completion": "Print the script for completion.",
}


class CheckedCommand(TyperCommand):
    """A command that refuses empty texts, infinite numbers, whole numbers beyond 64 bits and repeated single values.

    The message names the option.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words after the command.

        Raises:
            ValueError: a value is none that an option can take.
        """
        if ctx.resilient_parsing:  # a shell completes the words
            return list(super().parse_args(ctx, args))
        # The words as they are given: an empty path would become ".", the working directory.
        parameters: list[Any] = self.get_params(ctx)
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in parameters:
            if order.count(parameter) > 1 and _takes_one_value(parameter):
                raise ValueError(f"{_name(parameter)} is given {order.count(parameter)} times, and takes one value")
            blank = any(isinstance(v, str) and not v.strip() for v in _single(given.get(parameter.name)))
            if blank and parameter.name not in MAY_BE_EMPTY:
                raise ValueError(f"{_name(parameter)} is empty: give a value, or leave it out")
        rest: list[str] = super().parse_args(ctx, args)
        for parameter in parameters:
            for value in _single(ctx.params.get(parameter.name)):
                if isinstance(value, Integral) and abs(int(value)) > LARGEST_COUNT:
                    raise ValueError(f"{_name(parameter)} must be at most {LARGEST_COUNT}, got a larger one")
                if isinstance(value, Real) and not isinstance(value, Integral) and not math.isfinite(value):
                    raise ValueError(f"{_name(parameter)} must be a finite number, got {value}")
        return rest


def _name(parameter: Any) -> str:
    """An option as it is given, or an argument as the help calls it."""
    return str(parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar or parameter.name)


def _takes_one_value(parameter: Any) -> bool:
    """Whether only the last value of an option would be used if it were repeated."""
    return parameter.param_type_name == "option" and not (parameter.multiple or parameter.is_flag or parameter.count)


def _single(value: Any) -> Iterator[Any]:
    """The values of an option that may be repeated, or take several at once."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _single(item)
    else:
        yield value


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

    def get_params(self, ctx: Any) -> list[Any]:
        """The options of the program; those of Typer with help of one line, so that the list fits on a screen."""
        found: list[Any] = super().get_params(ctx)
        for parameter in found:
            parameter.help = _COMPLETION.get(parameter.name, getattr(parameter, "help", None))
        return found

    def invoke(self, ctx: Any) -> Any:
        """Run the command of a context; see :func:`~deft_ct.cli.errors.one_line_errors`."""
        with one_line_errors():
            return super().invoke(ctx)


def set_traceback(
    traceback: Annotated[bool, typer.Option(FLAG, help="Also print the traceback of an error.")] = False,
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
