"""``deft-ct demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deft_ct.cli.errors import one_line_errors
from deft_ct.cli.output import print_run
from deft_ct.io import sample_series_path
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the results; an earlier one is replaced.")
    ] = Path("demo-output"),
    samples: Annotated[int, typer.Option(help="Posterior samples of every slice.")] = 4,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Reconstruct the shipped CT series (LIDC-IDRI-0314, CC BY 3.0) from 60 simulated views: FBP, TV and DEFT."""
    with one_line_errors():
        settings = SparseView(samples=samples, device=device)
        run = reconstruct_series(sample_series_path(), out, settings, overwrite=True, progress=progress)
    print_run(run, settings)
