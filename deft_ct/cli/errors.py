"""Every failure of a command as one line, and warnings, too.

The exit status is one of these:

* 0: done.
* 1: an error that nobody foresaw: a fault of deft-ct, please report it.
* 2: an option, a file, a folder or the memory of the machine does not allow it; the line says what to change.
* 130: interrupted with Ctrl-C.

The line goes to standard error. ``--traceback`` also prints where the error happened.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import typer
from rich.console import Console
from rich.text import Text

from deft_ct.runtime.printable import printable

UNEXPECTED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses of failures."""

MOST_CHARACTERS = 1000
"""Characters of a message that are printed; the rest of a longer one, for example with a huge value in it, is cut."""

SHOW_TRACEBACK: ContextVar[bool] = ContextVar("SHOW_TRACEBACK", default=False)
"""Whether the traceback of an error is printed before its line."""

_FORESEEN = (ValueError, OSError, ImportError, FloatingPointError, MemoryError)
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]  # Click's or Typer's ClickException
_OF_TYPER = (typer.Exit, typer.Abort, _USAGE_ERROR)


def one_line(text: object) -> str:
    """Text for a terminal: one line, without control characters, not longer than :data:`MOST_CHARACTERS`.

    Names of files and headers may hold anything; see :func:`~deft_ct.runtime.printable.printable`.
    """
    return printable(text, MOST_CHARACTERS)


@contextmanager
def one_line_errors(*, interrupted: str = "nothing was written") -> Iterator[None]:
    """Print an error as one line and end with the status that the table of this module gives.

    Args:
        interrupted: message after Ctrl-C.

    Raises:
        typer.Exit: there was an error, or an interruption.
    """

    def show(message: Warning | str, *_: object, **__: object) -> None:
        _say("warning:", "yellow", one_line(message))

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", category=UserWarning, module="deft_ct")
            warnings.showwarning = show
            yield
    except (*_OF_TYPER, BrokenPipeError):  # Typer knows what to do with them
        raise
    except Exception as error:
        if SHOW_TRACEBACK.get():
            traceback.print_exception(error)
        _say("error:", "bold red", _in_words(error))
        foreseen = isinstance(error, _FORESEEN) or _out_of_memory(error)
        raise typer.Exit(code=REFUSED if foreseen else UNEXPECTED) from error
    except KeyboardInterrupt:
        _say("interrupted:", "bold", one_line(interrupted))
        raise typer.Exit(code=INTERRUPTED) from None


def _out_of_memory(error: Exception) -> bool:
    """PyTorch says it with a RuntimeError, of a subclass on a GPU alone."""
    said = any(words in str(error) for words in ("out of memory", "allocate memory"))
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and said)


def _in_words(error: Exception) -> str:
    kind, message = type(error).__name__, one_line(error)
    if _out_of_memory(error):
        return f"out of memory ({message or 'no more is said'}): use fewer or smaller images, views or samples"
    if isinstance(error, _FORESEEN):
        return message or kind
    return f"unexpected {kind}: {message or 'no message'}; `deft-ct --traceback ...` shows where it happened"


def _say(label: str, style: str, message: str) -> None:
    # A Text: Rich would read markup and emoji codes in a string.
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text.assemble((label, style), " ", message))
