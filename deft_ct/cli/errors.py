"""Errors of a user's input, and warnings, as one line without a traceback."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

DEBUG_VARIABLE = "DEFT_CT_DEBUG"


@contextmanager
def one_line_errors(*, interrupted: str = "nothing was written") -> Iterator[None]:
    """Print an error of the library as one line and end with status 2; ``DEFT_CT_DEBUG=1`` shows the traceback.

    Args:
        interrupted: message after Ctrl-C.
    """
    console = Console(stderr=True, soft_wrap=True)

    def show(message: Warning | str, *_: object, **__: object) -> None:
        console.print(f"[yellow]warning:[/] {escape(str(message))}")

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", category=UserWarning, module="deft_ct")
            warnings.showwarning = show
            yield
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        console.print(f"[bold red]error:[/] {escape(str(error))}")
        if isinstance(error, RuntimeError):  # rarely the user's doing
            console.print(f"[dim]{DEBUG_VARIABLE}=1 shows where it happened[/]")
        raise typer.Exit(code=2) from error
    except KeyboardInterrupt:
        Console(stderr=True).print(f"[bold]interrupted[/]: {interrupted}")
        raise typer.Exit(code=130) from None
