"""Print the result of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from deft_ct.report import FOOTER, metrics_table
from deft_ct.workflows.cohort import FAILED, TABLE, PatientRun
from deft_ct.workflows.measured_output import NOTICE_OF_MEASURED, MeasuredRun
from deft_ct.workflows.projection_output import NOTICE, VolumeRun
from deft_ct.workflows.reconstruct_series import Run, SparseView


def print_run(run: Run, settings: SparseView) -> None:
    """The table of metrics and where the results are."""
    console = Console()
    for finding in run.findings:
        console.print(f"[red]warning:[/] {escape(str(finding))}")
    for note in run.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")
    console.print(metrics_table(run.rows, title=settings.summary))
    console.print(f"written to [bold]{escape(str(run.folder))}[/]", soft_wrap=True)
    console.print(f"[bold]{FOOTER}.[/]")


def print_patient(one: PatientRun) -> None:
    """A line on a patient who is finished."""
    console = Console(soft_wrap=True)
    name = escape(one.name)
    if one.state == FAILED:
        console.print(f"{name}: [red]failed:[/] {escape(one.reason)}")
        return
    psnr = (one.metrics or {}).get("psnr")
    console.print(f"{name}: {one.slices} slices, PSNR {'-' if psnr is None else f'{psnr:.2f} dB'}")


def refuse_failed(patients: Sequence[PatientRun], out: Path) -> None:
    """Say where the results are, and end with an error if a patient has failed.

    Raises:
        ValueError: one has.
    """
    failed = [one.name for one in patients if one.state == FAILED]
    console = Console(soft_wrap=True)
    console.print(
        f"{len(patients) - len(failed)} of {len(patients)} patients done, table: [bold]{escape(str(out / TABLE))}[/]"
    )
    console.print(f"[bold]{FOOTER}.[/]")
    if failed:
        raise ValueError(f"{len(failed)} of {len(patients)} patients failed: {', '.join(failed)}; see {out / TABLE}")


def print_volume(run: VolumeRun) -> None:
    """What was reconstructed of raw data, and where the results are. Warnings were printed when they came up."""
    console, scan = Console(), run.scan
    for note in run.place.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")
    slices, rows, columns = scan["image_shape"]
    dz, _, dx = scan["voxel_zyx_mm"]
    console.print(
        f"{scan['views']} views, pitch {scan['pitch']:.3g}: {slices} slices of {rows} x {columns} pixels, "
        f"{dz:.4g} x {dx:.4g} x {dx:.4g} mm, {escape(run.summary)}"
    )
    console.print(f"written to [bold]{escape(str(run.folder))}[/]", soft_wrap=True)
    console.print(f"[bold]{NOTICE}.[/]")


def print_measured(run: MeasuredRun) -> None:
    """What was reconstructed of measured projections. Warnings were printed when they came up."""
    console = Console()
    for note in run.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")
    residual, seconds = run.record["data_residual"], run.record["seconds_per_image"]
    console.print(escape(run.in_words))
    console.print(f"{escape(run.settings.summary)}: data residual {residual:.3g}, {seconds:.3g} s an image")
    console.print(f"written to [bold]{escape(str(run.folder))}[/]", soft_wrap=True)
    console.print(f"[bold]{NOTICE_OF_MEASURED}.[/]")
