"""``deft-ct train``: one sub-command for each kind of network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from deft_ct.cli import train_supervised
from deft_ct.cli.errors import one_line_errors
from deft_ct.cli.groups import grouped
from deft_ct.cli.training_options import (
    RESUME,
    AnyStart,
    Channels,
    Out,
    Patch,
    Progress,
    ScanOptions,
    Source,
    TrainingOptions,
    TVIterations,
    card_of,
    family_of,
    finish,
    head_network,
    network_from,
    read_source,
    table_of,
    with_random_scans,
)

app = typer.Typer(no_args_is_help=True, help="Train a network. Run the same command again to resume.")


@app.command()
@grouped
def prior(
    out: Out,
    data: Source = None,
    training: TrainingOptions = TrainingOptions(steps=6000, warmup=100, ema_decay=0.999),
    channels: Channels = "64,96,128",
    patch: Patch = 4,
    layers: Annotated[int, typer.Option(help="Residual blocks of each level.", min=1)] = 1,
    schedule: Annotated[
        str, typer.Option(help="linear, scaled_linear, squaredcos_cap_v2, or vp_sde (continuous in time).")
    ] = "linear",
    initial: Annotated[
        str | None, typer.Option(help="Go on from this prior (folder or shipped name), with new learning rates.")
    ] = None,
    progress: Progress = True,
) -> None:
    """Train an unconditional prior and write it to OUT/prior."""
    with one_line_errors(interrupted=RESUME):
        from deft_ct.ct.pairs import augment_slices
        from deft_ct.diffusion import load_prior, save_prior
        from deft_ct.diffusion.schedule import BetaSchedule, Schedule
        from deft_ct.diffusion.train import PriorSpec, train_prior
        from deft_ct.measurement.scales import PriorRange

        source, first = read_source(data), None if initial is None else load_prior(initial)
        known = None if first is None else getattr(first.network, "config", None)
        made = train_prior(
            source, out,
            spec=PriorSpec(
                network=known or network_from(channels, patch, layers), value_range=PriorRange(),
                schedule=Schedule(kind=cast(BetaSchedule, schedule)), image_shape=(1, *source.image_shape),
            ),
            training=training.config(), augment=augment_slices, initial=first, progress=progress,
        )  # fmt: skip
        finish(out / "prior", made.content_hash(), lambda folder: save_prior(made, folder))


@app.command()
@grouped
def htransform(
    out: Out,
    prior: Annotated[str | None, typer.Option(help="Frozen prior: folder or shipped name.")] = None,
    data: Source = None,
    simulated: ScanOptions = ScanOptions(),
    any_scan: Annotated[
        bool, typer.Option("--any-scan", help="One head for any scan; half of the steps take the scans of --scan.")
    ] = False,
    any_start: AnyStart = False,
    reference: Annotated[str, typer.Option(help="none, fbp or tv.")] = "tv",
    guidance: Annotated[str, typer.Option(help="score, adjoint, fbp, data, cg or split.")] = "fbp",
    channels: Channels = "64,96,128",
    objective: Annotated[
        str, typer.Option(help="denoising, or without images: log-variance or trajectory-balance (one scan).")
    ] = "denoising",
    paths: Annotated[int, typer.Option(help="Paths of each measurement, without images.", min=2)] = 8,
    path_steps: Annotated[int, typer.Option(help="Evaluations on a path, without images.", min=2)] = 25,
    initial: Annotated[
        str | None, typer.Option(help="Go on from this h-transform (folder or shipped name), with a new schedule.")
    ] = None,
    refinement: Annotated[
        Path | None, typer.Option(help="Refinement of the reference, from `deft-ct train refinement`.")
    ] = None,
    tv_iterations: TVIterations = 16,
    references: Annotated[
        Path | None,
        typer.Option(
            help="Folder of references tabulated before, as OUT/references of `train refinement` with the "
            "same data, scans, seed and --batches."
        ),
    ] = None,
    batches: Annotated[
        int, typer.Option(help="Tabulate the references of so many batches first; 0: new ones at every step.", min=0)
    ] = 0,
    training: TrainingOptions = TrainingOptions(),
    progress: Progress = True,
) -> None:
    """Train the h-transform of a prior (DEFT) and write it to OUT/htransform."""
    with one_line_errors(interrupted=RESUME):
        from deft_ct.ct.pairs import SlicePairs
        from deft_ct.diffusion import load_prior
        from deft_ct.methods.deft import HTransformConfig, load_htransform, load_refinement, save_htransform
        from deft_ct.methods.deft.conditioning import SPREAD_SLOPES
        from deft_ct.methods.deft.control import ControlConfig, ControlObjective
        from deft_ct.methods.deft.initial_table import tabulate
        from deft_ct.methods.deft.train import HTransformTraining, train_htransform
        from deft_ct.methods.deft.train_control import SimulatedMeasurements, train_control

        frozen, source = load_prior(prior), read_source(data)
        scans, settings = simulated.scans(), training.config()
        family = family_of(any_scan, any_start)
        measurements, weights = with_random_scans(scans, family, source, training.seed)
        first = None if initial is None else load_htransform(initial)
        refined = None if refinement is None else load_refinement(refinement)
        config = HTransformConfig(
            scan_features=any_scan, arc_direction=any_start, tv_iterations=tv_iterations,
            refinement=None if refined is None else refined.config,
            spread=HTransformConfig.spread if refined is None else refined.typical_error,
            spread_slopes=SPREAD_SLOPES if any_scan and reference == "tv" else (),
            reference=reference,
            guidance=guidance,
            network=head_network(frozen, channels) if first is None else first.config.network,
        )  # fmt: skip
        pairs = SlicePairs(source, measurements, frozen.value_range, weights=weights)
        if objective == "denoising":
            table = None
            if batches:
                table = tabulate(
                    pairs,
                    table_of(batches, settings, tv_iterations, family),
                    references or out / "references",
                    progress=progress,
                )
            head = train_htransform(
                pairs, frozen, out, config=config, training=settings,
                options=HTransformTraining(initial=first, refinement=refined, table=table), progress=progress,
            )  # fmt: skip
        else:
            if any_scan or len(measurements) != 1:
                raise ValueError(f"--objective {objective} trains for one scan: give one --scan, and no --any-scan")
            control = ControlConfig(objective=cast(ControlObjective, objective), steps=path_steps, paths=paths)
            head = train_control(
                SimulatedMeasurements(pairs, seed=training.seed), frozen, out, config=config,
                control=control, initial=first, training=settings, progress=progress,
            )  # fmt: skip
        head.card |= card_of(scans, source, settings, family)
        finish(out / "htransform", head.content_hash(), lambda folder: save_htransform(head, folder))


@app.command()
@grouped
def refinement(
    out: Out,
    data: Source = None,
    simulated: ScanOptions = ScanOptions(),
    any_scan: Annotated[
        bool, typer.Option("--any-scan", help="For any scan; half of the batches take the scans of --scan.")
    ] = False,
    any_start: AnyStart = False,
    batches: Annotated[int, typer.Option(help="Batches of references, tabulated before the training.", min=1)] = 600,
    tv_iterations: TVIterations = 40,
    channels: Channels = "32,64,96,128",
    patch: Patch = 2,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="In use, take the mean with what the mirror images give (--any-start).")
    ] = False,
    initial: Annotated[Path | None, typer.Option(help="Go on from this refinement, with a new schedule.")] = None,
    training: TrainingOptions = TrainingOptions(learning_rate=3e-3, ema_decay=0.99),
    progress: Progress = True,
) -> None:
    """Train the refinement of the TV reference of an h-transform and write it to OUT/refinement."""
    with one_line_errors(interrupted=RESUME):
        from deft_ct.ct.pairs import SlicePairs
        from deft_ct.measurement.scales import PriorRange
        from deft_ct.methods.deft import load_refinement, save_refinement
        from deft_ct.methods.deft.conditioning import SPREAD_SLOPES
        from deft_ct.methods.deft.refinement import RefinementConfig
        from deft_ct.methods.deft.train_refinement import train_refinement

        source, scans, settings = read_source(data), simulated.scans(), training.config()
        family = family_of(any_scan, any_start)
        measurements, weights = with_random_scans(scans, family, source, settings.seed)
        first = None if initial is None else load_refinement(initial)
        made = train_refinement(
            SlicePairs(source, measurements, PriorRange(), weights=weights), out,
            config=RefinementConfig(
                scan_features=any_scan, arc_direction=any_start, mirror=mirror,
                spread_slopes=SPREAD_SLOPES if any_scan else (),
                network=network_from(channels, patch) if first is None else first.config.network,
            ),
            table=table_of(batches, settings, tv_iterations, family), training=settings,
            initial=first, progress=progress,
        )  # fmt: skip
        made.card |= card_of(scans, source, settings, family)
        finish(out / "refinement", made.content_hash(), lambda folder: save_refinement(made, folder))


for _name, _train in (
    ("fbp-unet", train_supervised.fbp_unet),
    ("learned-primal-dual", train_supervised.learned_primal_dual),
    ("conditional", train_supervised.conditional),
    ("i2sb", train_supervised.i2sb),
):
    app.command(_name)(_train)
