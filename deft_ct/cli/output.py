"""Print the result of a run."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from deft_ct.report import FOOTER, metrics_table
from deft_ct.workflows.reconstruct_series import Run, SparseView


def print_run(run: Run, settings: SparseView) -> None:
    """The table of metrics and where the results are."""
    console = Console()
    for note in run.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")
    console.print(metrics_table(run.rows, title=settings.summary))
    console.print(f"written to [bold]{escape(str(run.folder))}[/]", soft_wrap=True)
    console.print(f"[bold]{FOOTER}.[/]")
