"""Tables as a terminal shows them."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from deft_ct.cli.compare import print_tables
from deft_ct.evaluation.comparison import Comparison


def terminal_text(comparison: Comparison) -> str:
    """The tables of a benchmark and how they were taken, wide enough that no cell is broken."""
    console = Console(width=400, record=True, file=io.StringIO())
    print_tables(console, comparison, Path("out"))
    return console.export_text()
