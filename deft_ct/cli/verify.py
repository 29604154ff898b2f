"""``deft-ct verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.workflows.verify import verify_series


def verify(
    result: Annotated[Path, typer.Argument(help="Folder of a finished `deft-ct reconstruct` of a series.")],
    series_folder: Annotated[
        Path | None, typer.Argument(help="The series, if it was moved or the result is de-identified.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--slice", help="Slice to reconstruct again, from 1. Default: the middle.", min=1)
    ] = None,
    progress: opt.Progress = True,
) -> None:
    """Check that a finished result is unchanged and reproducible.

    Example: `deft-ct verify OUT`

    Compares the files with their hashes, and one slice with one that is made anew. Exit status 2 if anything differs;
    the line says what. Nothing is written.
    """
    console = Console(soft_wrap=True)
    with one_line_errors():
        found = verify_series(result, series_folder, slice_number=number, progress=progress)
        for note in found.notes:
            console.print(f"[yellow]note:[/] {escape(note)}")
        for name, largest in found.largest_hu.items():
            console.print(f"{escape(name)}: slice {found.slice_number} differs by at most {largest:.3g} HU")
        if found.problems:
            raise ValueError(f"{result} is not as it was written: {'; '.join(found.problems)}")
        same = f"slice {found.slice_number} the same within {found.tolerance_hu:g} HU"
        console.print(f"{found.files} files unchanged, {same}")
