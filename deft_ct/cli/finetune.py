"""``deft-ct finetune``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from deft_ct.cli import options as opt
from deft_ct.cli.groups import grouped
from deft_ct.cli.training_options import (
    AnyScan,
    Initial,
    TrainingOptions,
    TrainingScans,
    finish,
    log_once,
    training_job,
)
from deft_ct.workflows.finetune import FinetuneSettings, finetune
from deft_ct.workflows.training_setup import FolderSource

_TRAINING = TrainingOptions(steps=400, learning_rate=5e-4, warmup=20, ema_decay=0.99)


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Slices of your own."""

    data: opt.Data
    hu_range: Annotated[
        tuple[float, float] | None,
        typer.Option("--hu-range", metavar="BLACK WHITE", help="CT numbers of black and white pixels in PNG and TIFF."),
    ] = None
    pixel_mm: Annotated[float | None, typer.Option("--pixel-mm", help="Pixel width of PNG and TIFF in mm.")] = None
    every: opt.Every = 1


@grouped
def finetune_command(
    out: opt.Out,
    source: FolderOptions,
    initial: Initial = None,
    prior: opt.PriorName = None,
    simulated: TrainingScans = TrainingScans(),
    any_scan: AnyScan = None,
    training: TrainingOptions = _TRAINING,
    refinement_steps: Annotated[
        int, typer.Option(help="Steps for the refinement network, trained first. 0 keeps it unchanged.", min=0)
    ] = 200,
    refinement_rate: Annotated[float, typer.Option(help="Peak learning rate of the refinement network.")] = 2e-3,
    progress: opt.Progress = True,
) -> None:
    """Fit an h-transform to your own CT slices.

    Example: `deft-ct finetune --data FOLDER --out OUT`

    Writes OUT/htransform. --data may be a folder with DICOM, NIfTI, HDF5, PNG or TIFF files. Without --initial,
    training starts from the shipped h-transform. The prior does not change. First the refinement network is trained,
    then the h-transform network. `deft-ct train htransform` trains a new one. Research only, not for clinical use.
    """
    with training_job(out):
        from deft_ct.methods.deft import save_htransform

        settings = FinetuneSettings(
            training=training.config(), scans=tuple(simulated.scans()), any_scan=any_scan, initial=initial, prior=prior,
            refinement_steps=refinement_steps, refinement_rate=refinement_rate,
        )  # fmt: skip
        made = finetune(FolderSource(**vars(source)), out, settings, log=log_once, progress=progress)
        if made is None:
            return
        log_once(
            f"Use it: deft-ct reconstruct SERIES_FOLDER --htransform {out / 'htransform'}"
            f"{f' --prior {prior}' if prior else ''} --out RESULT"
        )
        finish(out / "htransform", made, save_htransform)
