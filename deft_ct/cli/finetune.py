"""``deft-ct finetune``: from a folder of CT to an h-transform that is fitted to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deft_ct.cli.errors import one_line_errors
from deft_ct.cli.groups import grouped
from deft_ct.cli.training_options import (
    RESUME,
    Out,
    Progress,
    ScanOptions,
    TrainingOptions,
    card_of,
    finish,
    with_random_scans,
)
from deft_ct.ct.scan_range import ScanRange
from deft_ct.datasets.dicom_folder import CTFolder
from deft_ct.datasets.packs import CTPack

if TYPE_CHECKING:
    from deft_ct.ct.pairs import SlicePairs
    from deft_ct.methods.deft import HTransform
    from deft_ct.methods.deft.refinement import Refinement
    from deft_ct.training import TrainingConfig

_SCANS = ScanOptions()
_TRAINING = TrainingOptions(steps=400, learning_rate=5e-4, warmup=20, ema_decay=0.99)


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Where slices come from, and what pictures among them mean."""

    data: Annotated[
        Path, typer.Option("--data", help="Folder with CT slices: DICOM, NIfTI, HDF5, PNG or TIFF; or one HDF5 pack.")
    ]
    hu_range: Annotated[
        tuple[float, float] | None,
        typer.Option("--hu-range", metavar="BLACK WHITE", help="CT numbers of black and white pixels of PNG and TIFF."),
    ] = None
    pixel_mm: Annotated[float | None, typer.Option("--pixel-mm", help="Pixel width of PNG and TIFF, mm.")] = None
    every: Annotated[int, typer.Option(help="Take every k-th slice.", min=1)] = 1

    def read(self, size: int) -> CTPack | CTFolder:
        """The slices at ``size`` x ``size`` pixels, after a line about what was found and each file left out."""
        if (self.hu_range is None) != (self.pixel_mm is None):
            raise ValueError("pictures need both --hu-range BLACK WHITE and --pixel-mm, or neither for other files")
        if not self.data.is_dir():
            pack = CTPack(self.data, every=self.every)
            if pack.image_shape != (size, size):
                raise ValueError(
                    f"{self.data} has slices of {pack.image_shape[0]} x {pack.image_shape[1]} pixels and the prior is "
                    f"for {size} x {size}: name the folder that holds it, and they are resized"
                )
            return pack
        folder = CTFolder(
            self.data, size=size, every=self.every, picture_hu=self.hu_range, picture_pixel_mm=self.pixel_mm
        )
        series = len({folder[n].group for n in range(len(folder))})
        _say(f"{len(folder)} slices of {series} series or files, at {size} x {size} pixels")
        return folder


@grouped
def finetune(
    out: Out,
    source: FolderOptions,
    initial: Annotated[
        str | None, typer.Option(help="h-transform to go on from: folder or shipped name; the shipped one by default.")
    ] = None,
    prior: Annotated[str | None, typer.Option(help="Frozen prior: folder or shipped name.")] = None,
    simulated: ScanOptions = _SCANS,
    any_scan: Annotated[
        bool | None,
        typer.Option(
            "--any-scan/--one-scan", help="Random scans in half of the steps; by default if the initial one knows any."
        ),
    ] = None,
    training: TrainingOptions = _TRAINING,
    refinement_steps: Annotated[
        int, typer.Option(help="Steps of the refinement of its reference before those of the head; 0: it stays.", min=0)
    ] = 200,
    refinement_rate: Annotated[float, typer.Option(help="Peak learning rate of these steps.")] = 2e-3,
    progress: Progress = True,
) -> None:
    """Fit an h-transform to CT slices of your own, starting from a trained one, and write it to OUT/htransform.

    The prior stays frozen. The refinement of the reference is fitted first, to references that are tabulated in
    OUT/refinement, then the head around it, to measurements that are simulated at every step. `deft-ct train` trains
    from the beginning. Research only, not for clinical use.
    """
    with one_line_errors(interrupted=RESUME):
        from deft_ct.ct.pairs import SlicePairs
        from deft_ct.diffusion import load_prior
        from deft_ct.methods.deft import load_htransform, save_htransform
        from deft_ct.methods.deft.train import HTransformTraining, train_htransform
        from deft_ct.training import steps_done

        settings = training.config()
        frozen, first = load_prior(prior), load_htransform(initial)
        if any_scan and not first.config.scan_features:
            raise ValueError("the initial h-transform is not told the scan: give --one-scan, or train one for any scan")
        slices = source.read(frozen.image_shape[-1])
        random = first.config.scan_features if any_scan is None else any_scan
        family = ScanRange(any_start=first.config.arc_direction) if random else None
        measurements, weights = with_random_scans(simulated.scans(), family, slices, settings.seed)
        pairs = SlicePairs(slices, measurements, frozen.value_range, weights=weights)
        refined = None
        if first.refinement is not None and refinement_steps:
            shorter = replace(settings, steps=refinement_steps, learning_rate=refinement_rate)
            refined = _fitted(first, pairs, out / "refinement", shorter, progress)
            if steps_done(out / "refinement") < refinement_steps:  # the time limit; a head needs the finished one
                return
        head = train_htransform(
            pairs, frozen, out, config=first.config, training=settings,
            options=HTransformTraining(initial=first, refinement=refined), progress=progress,
        )  # fmt: skip
        head.card = {"initial_sha256": first.content_hash(), **card_of(simulated.scans(), slices, settings, family)}
        head.card |= {"refinement_steps": refinement_steps} if refined is not None else {}
        _say(
            f"Use it: deft-ct reconstruct SERIES_FOLDER --htransform {out / 'htransform'}"
            f"{f' --prior {prior}' if prior else ''} --out RESULT"
        )
        finish(out / "htransform", head.content_hash(), lambda folder: save_htransform(head, folder))


PASSES = 3
"""Times that a tabulated reference is used."""


def _fitted(first: HTransform, pairs: SlicePairs, folder: Path, training: TrainingConfig, progress: bool) -> Refinement:
    """The refinement of an h-transform, trained on."""
    from deft_ct.methods.deft.initial_table import TableConfig
    from deft_ct.methods.deft.train_refinement import train_refinement

    assert first.refinement is not None
    config = first.refinement.config
    table = TableConfig(
        batches=math.ceil(training.steps / PASSES), batch_size=training.batch_size, guidance=config.guidance,
        reference=first.config.reference, tv_iterations=first.config.tv_iterations,
        scan_features=config.scan_features, arc_direction=config.arc_direction, seed=training.seed,
    )  # fmt: skip
    return train_refinement(
        pairs, folder, config=config, table=table, training=training, initial=first.refinement,
        progress=progress,
    )  # fmt: skip


def _say(text: str) -> None:
    """Print beside the result, from one of several processes."""
    from deft_ct.training import is_main_process

    if is_main_process():
        typer.echo(text, err=True)
