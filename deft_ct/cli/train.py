"""``deft-ct train``: one sub-command for each kind of network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from deft_ct.cli import options as opt
from deft_ct.cli import train_supervised
from deft_ct.cli.commands import CheckedCommand
from deft_ct.cli.groups import grouped
from deft_ct.cli.training_options import (
    AnyScan,
    AnyStart,
    Batches,
    Channels,
    DegradationOptions,
    Initial,
    InitialReconstruction,
    Patch,
    TrainingOptions,
    TrainingScans,
    TVIterations,
    finish,
    scanned_slices,
    training_job,
)
from deft_ct.datasets.backbones import is_backbones
from deft_ct.datasets.photographs import is_photographs
from deft_ct.diffusion.schedule import BetaSchedule
from deft_ct.workflows.train_backbones import (
    BackboneRecipe,
    backbone_width,
    htransform_on_backbones,
    prior_on_backbones,
)
from deft_ct.workflows.train_priors import PriorRecipe, image_domain, prior_on_images
from deft_ct.workflows.training_setup import new_network

app = typer.Typer(no_args_is_help=True, help="Train a network. Run the same command again to resume.")


@app.command(cls=CheckedCommand)
@grouped
def prior(
    out: opt.Out,
    data: opt.Data = "train",
    training: TrainingOptions = TrainingOptions(steps=6000, warmup=100, ema_decay=0.999),
    channels: Channels = "64,96,128",
    patch: Patch = 4,
    layers: Annotated[int, typer.Option(help="Residual blocks of each level.", min=1)] = 1,
    attention: Annotated[
        str, typer.Option(help="Levels of a new network with self-attention, counted from 1: 2,3. Default: none.")
    ] = "",
    schedule: Annotated[BetaSchedule, typer.Option(help="Noise schedule. vp_sde is continuous in time.")] = "linear",
    initial: Initial = None,
    progress: opt.Progress = True,
) -> None:
    """Train an unconditional prior and write it to OUT/prior.

    Example: `deft-ct train prior --data train.h5 --steps 5000 --batch-size 8 --out OUT`

    --data photos:FOLDER[:SIZE] trains on photographs: pictures of any format, cut to their central square.
    --data backbones:FILE trains on chains of C-alpha atoms. Their network has one width: --channels 128 --layers 2.
    """
    with training_job(out):
        from deft_ct.diffusion import save_prior

        config = training.config()
        if is_backbones(data):
            _refuse("backbones", {"--attention": attention})
            shape = BackboneRecipe(width=backbone_width(channels), layers=layers, schedule=schedule, initial=initial)
            finish(out / "prior", prior_on_backbones(data, out, shape, config, progress=progress), save_prior)
            return
        recipe = PriorRecipe(
            channels=channels, patch=patch, layers=layers, attention=attention, schedule=schedule, initial=initial
        )
        made = prior_on_images(image_domain(data), out, recipe, config, progress=progress)
        finish(out / "prior", made, save_prior)


@app.command(cls=CheckedCommand)
@grouped
def htransform(
    out: opt.Out,
    prior: opt.PriorName = None,
    data: opt.Data = "train",
    simulated: TrainingScans = TrainingScans(),
    any_scan: AnyScan = None,
    any_start: AnyStart = False,
    degraded: DegradationOptions = DegradationOptions(),
    initial_reconstruction: InitialReconstruction = "auto",
    guidance: Annotated[
        Literal["auto", "score", "adjoint", "fbp", "data", "cg", "split", "project"],
        typer.Option(
            help="How the data enter the network. auto is fbp, score for photographs, and project for backbones."
        ),
    ] = "auto",
    channels: Channels = "64,96,128",
    loss: Annotated[
        Literal["denoising", "log-variance", "trajectory-balance"],
        typer.Option(help="Training loss. All but denoising need no images, and one scan."),
    ] = "denoising",
    paths: Annotated[
        int, typer.Option(help="Sampling paths of each measurement, for a loss without images.", min=2)
    ] = 8,
    path_steps: Annotated[
        int, typer.Option(help="Network evaluations of each path, for a loss without images.", min=2)
    ] = 25,
    initial: Initial = None,
    refinement: Annotated[
        Path | None, typer.Option(help="Folder of a refinement network from `deft-ct train refinement`.")
    ] = None,
    tv_iterations: TVIterations = 16,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Folder of initial reconstructions from an earlier training: OUT/references of `train refinement`. "
            "Data, scans, seed and --batches must be the same."
        ),
    ] = None,
    batches: Batches = 0,
    training: TrainingOptions = TrainingOptions(),
    progress: opt.Progress = True,
) -> None:
    """Train the h-transform of a prior (DEFT) and write it to OUT/htransform.

    Example: `deft-ct train htransform --prior PRIOR --any-scan --steps 800 --out OUT`

    On photographs, --operator names what degrades them: --data photos:FOLDER --operator sr4 --noise 0.05 --prior P.
    One network learns several operators that are joined by a plus: --operator sr4+hdr+gaussian_blur:sigma=2.
    On --data backbones:FILE it learns to scaffold motifs of one segment: --channels 32 --prior P.
    """
    with training_job(out):
        from deft_ct.methods.deft import save_htransform
        from deft_ct.workflows.train_networks import (
            HTransformRecipe,
            htransform_on_slices,
        )

        photos = is_photographs(data)
        if not is_backbones(data):
            new_network(channels)  # refuses others before any work
        settings = HTransformRecipe(
            training=training.config(), prior=prior, initial=initial,
            initial_reconstruction=initial_reconstruction,
            tv_iterations=tv_iterations, refinement=refinement,
            guidance=guidance,
            channels=channels, batches=batches, table=table, loss=loss, paths=paths, path_steps=path_steps,
        )  # fmt: skip
        if photos or is_backbones(data):
            only_for_slices = {
                "the options of scans": any(value is not None for value in vars(simulated).values()),
                "--any-scan": any_scan or any_start, "--table or --batches": table or batches,
            }  # fmt: skip
            _refuse("photographs and backbones", only_for_slices)
        if is_backbones(data):
            _refuse("backbones", {"--operator and --noise": degraded.given(), "--refinement": refinement})
            finish(
                out / "htransform", htransform_on_backbones(data, out, settings, progress=progress), save_htransform
            )  # fmt: skip
            return
        if photos:
            from deft_ct.workflows.train_photographs import htransform_on_photographs

            photographs = degraded.photographs(data)
            finish(
                out / "htransform", htransform_on_photographs(photographs, out, settings, progress=progress),
                save_htransform,
            )  # fmt: skip
            return
        _refuse("CT slices", {"--operator and --noise": degraded.given()})
        slices = scanned_slices(data, simulated, any_scan=any_scan, any_start=any_start)
        made = htransform_on_slices(slices, out, settings, progress=progress)
        finish(out / "htransform", made, save_htransform)


def _refuse(images: str, given: Mapping[str, object]) -> None:
    found = [name for name, value in given.items() if value]
    if found:
        raise ValueError(f"{' and '.join(found)} cannot be used with {images}: leave it out, or take other --data")


@app.command(cls=CheckedCommand)
@grouped
def refinement(
    out: opt.Out,
    data: opt.Data = "train",
    simulated: TrainingScans = TrainingScans(),
    any_scan: AnyScan = None,
    any_start: AnyStart = False,
    degraded: DegradationOptions = DegradationOptions(),
    batches: Batches = 600,
    tv_iterations: TVIterations = 40,
    channels: Channels = "32,64,96,128",
    patch: Patch = 2,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="At inference, average with the results of mirrored inputs.")
    ] = False,
    second: Annotated[
        str | None, typer.Option(help="Trained model that gives a second image, e.g. learned_primal_dual_any_scan.")
    ] = None,
    larger: Annotated[
        str | None, typer.Option(help="Slices with more pixels, as --data; a quarter of the batches are crops of them.")
    ] = None,
    initial: Initial = None,
    training: TrainingOptions = TrainingOptions(learning_rate=3e-3, ema_decay=0.99),
    progress: opt.Progress = True,
) -> None:
    """Train the refinement network of an h-transform and write it to OUT/refinement.

    Example: `deft-ct train refinement --any-scan --batches 640 --steps 2000 --out OUT`

    It improves the TV initial reconstruction. --initial takes a folder. --mirror needs --any-start.
    On photographs (--data photos:FOLDER --operator sr4+hdr) it improves the image of the data.
    """
    with training_job(out):
        from deft_ct.methods.deft import save_refinement
        from deft_ct.workflows.train_networks import RefinementRecipe, refinement_on_slices

        settings = RefinementRecipe(
            training=training.config(), initial=initial, batches=batches, tv_iterations=tv_iterations,
            channels=channels, patch=patch, mirror=mirror, second=second,
        )  # fmt: skip
        if is_photographs(data):
            from deft_ct.workflows.train_photographs import refinement_on_photographs

            of_scans = any(value is not None for value in vars(simulated).values()) or any_scan or any_start
            of_tables = (batches, tv_iterations) != (RefinementRecipe.batches, RefinementRecipe.tv_iterations)
            _refuse(
                "photographs",
                {
                    "the options of scans": of_scans,
                    "--batches and --tv-iterations": of_tables,
                    "--second": second,
                    "--larger": larger,
                },
            )
            found = refinement_on_photographs(degraded.photographs(data), out, settings, progress=progress)
            finish(out / "refinement", found, save_refinement)
            return
        _refuse("CT slices", {"--operator and --noise": degraded.given()})
        slices = scanned_slices(data, simulated, any_scan=any_scan, any_start=any_start)
        more = None if larger is None else scanned_slices(larger, simulated, any_scan=any_scan, any_start=any_start)
        made = refinement_on_slices(slices, out, settings, larger=more, progress=progress)
        finish(out / "refinement", made, save_refinement)


@app.command(cls=CheckedCommand)
@grouped
def spread(
    out: opt.Out,
    data: opt.Data = "train",
    simulated: TrainingScans = TrainingScans(),
    any_scan: AnyScan = None,
    any_start: AnyStart = False,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    batches: Batches = 200,
    channels: Channels = "32,64,64",
    patch: Patch = 4,
    folds: Annotated[
        int, typer.Option(min=0, help="Train so many further networks, each without a part of the patients.")
    ] = 0,
    training: TrainingOptions = TrainingOptions(steps=1000, ema_decay=0.99),
    progress: opt.Progress = True,
) -> None:
    """Train the network that predicts the error of an h-transform's mean, and write it to OUT/spread.

    Example: `deft-ct train spread --data UNSEEN.h5 --any-scan --any-start --steps 1000 --out OUT`

    Use patients whom no other network has seen: errors on training slices are too small. Then copy the files of
    OUT/spread into the folder of the h-transform, and fit its intervals: `deft-ct calibrate deft:spread=network`.
    With --folds 3 this fit can use the training patients, too: each of the networks in OUT/folds has not seen a third
    of them.
    """
    with training_job(out):
        from deft_ct.methods.deft import save_spread_network
        from deft_ct.workflows.train_spread import FOLDS, SpreadRecipe, spread_on_slices

        settings = SpreadRecipe(
            training=training.config(), prior=prior, htransform=htransform, batches=batches, channels=channels,
            patch=patch, folds=folds,
        )  # fmt: skip
        slices = scanned_slices(data, simulated, any_scan=any_scan, any_start=any_start)
        made = spread_on_slices(slices, out, settings, progress=progress)
        finish(out / "spread", None if made is None else made[0], save_spread_network)
        for number, fold in enumerate((made or ())[1:], 1):
            finish(out / FOLDS / str(number), fold, save_spread_network)


for _name, _train in (
    ("fbp-unet", train_supervised.fbp_unet),
    ("learned-primal-dual", train_supervised.learned_primal_dual),
    ("conditional", train_supervised.conditional),
    ("amortised", train_supervised.amortised),
    ("i2sb", train_supervised.i2sb),
):
    app.command(_name, cls=CheckedCommand)(_train)
