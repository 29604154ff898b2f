"""``deft-ct demo``."""

from __future__ import annotations

from pathlib import Path

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.cli.output import print_run
from deft_ct.io import sample_series_path
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series
from deft_ct.workflows.series_output import Output

DEMO_SIZE = 256
"""Pixels of a side: a quarter of the work at the 512 of the series, which `deft-ct reconstruct` takes."""


def demo(
    out: opt.Out = Path("demo-output"),
    samples: opt.Samples = None,
    device: opt.Device = "cpu",
    progress: opt.Progress = True,
) -> None:
    """Reconstruct the shipped CT series with FBP, TV and DEFT.

    Example: `deft-ct demo --out demo-output`

    The scan has 60 simulated views. The series is LIDC-IDRI-0314 (CC BY 3.0). An earlier result in OUT is replaced.
    """
    with one_line_errors():
        settings = SparseView(samples=samples, device=device, size=DEMO_SIZE)
        run = reconstruct_series(sample_series_path(), out, settings, output=Output(overwrite=True), progress=progress)
    print_run(run, settings)
