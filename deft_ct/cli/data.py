"""``deft-ct data``: what data are there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deft_ct.cli.commands import CheckedCommand
from deft_ct.cli.errors import REFUSED, one_line, one_line_errors
from deft_ct.datasets.check import check_data
from deft_ct.datasets.findings import DataFindings, State
from deft_ct.problems.by_name import KINDS

app = typer.Typer(no_args_is_help=True, help="Look at data: what is there, what is missing, and how to name it.")

_STYLES: dict[State, str] = {"found": "green", "missing": "bold red", "damaged": "bold red", "left out": "dim"}
_ROWS = 40


@app.command(cls=CheckedCommand)
def check(
    path: Annotated[Path, typer.Argument(help="A folder or file: a data set, DICOM, NIfTI, HDF5, measured scans.")],
    all_files: Annotated[
        bool, typer.Option("--all/--problems", help="List every file, or problems and the first files of a kind.")
    ] = False,
) -> None:
    """Say what data a folder or file holds, and what is missing or damaged, file by file.

    Exit status: 0 complete, 2 something is missing, damaged or unknown.
    """
    with one_line_errors():
        found = check_data(path.expanduser())
        _show(found, path, all_files)
    if not found.complete:
        raise typer.Exit(code=REFUSED)


@app.command(cls=CheckedCommand)
def kinds() -> None:
    """List the kinds of data that have a name, for --data KIND:FOLDER[:WORD][:OPTION=VALUE]."""
    table = Table("name", "words", "options", "what")
    for kind, one in KINDS.items():
        options = " ".join(f"{option}=..." for option in one.options)
        table.add_row(f"{kind}:FOLDER", " ".join(one.words), options, one.help)
    Console().print(table)


def _show(found: DataFindings, path: Path, all_files: bool) -> None:
    console = Console()
    count = Counter(file.state for file in found.files)
    table = Table(title=Text(f"{one_line(path)}: {found.kind}"), title_justify="left")
    for heading in ("file", "state", "what"):
        table.add_column(heading, overflow="fold")
    problems = [file for file in found.files if file.state in ("missing", "damaged")]
    others = [file for file in found.files if file not in problems]
    shown = found.files if all_files else [*problems[:_ROWS], *others[: max(_ROWS - len(problems), 5)]]
    for file in shown:
        table.add_row(Text(one_line(file.path)), Text(file.state, _STYLES[file.state]), Text(one_line(file.what)))
    console.print(table)
    if len(shown) < len(found.files):
        console.print(f"{len(found.files) - len(shown)} more files: --all lists them")
    for note in found.notes:
        console.print(Text(f"- {one_line(note)}"), soft_wrap=True)
    states = ", ".join(f"{count[state]} {state}" for state in _STYLES if count[state])
    console.print(Text(f"{'complete' if found.complete else 'NOT complete'}: {states}"), soft_wrap=True)
    if found.complete or count["found"]:
        for command in found.commands:
            console.print(Text(f"  {one_line(command)}"), soft_wrap=True)
