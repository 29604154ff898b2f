"""``deft-ct train``: one sub-command for each kind of network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import typer

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.cli.groups import grouped
from deft_ct.datasets.dicom_folder import CTFolder
from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.measurement import GuidanceKind, Measurement
from deft_ct.networks import UNetConfig
from deft_ct.scan import Scan, ScanRange, unit_measurements

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the checkpoint, the log and the result.")]
Source = Annotated[
    str | None,
    typer.Option("--data", help="HDF5 pack, a folder of CT (DICOM, NIfTI, HDF5), or a pack's name; train by default."),
]
Channels = Annotated[str, typer.Option(help="Features of each level.")]
Patch = Annotated[int, typer.Option(help="Side of the space-to-depth stem.", min=1)]
Reference = Annotated[str, typer.Option(help="Reconstruction that the network starts from: fbp or tv.")]
TVIterations = Annotated[int, typer.Option(help="Iterations of the TV reference.", min=1)]
Spread = Annotated[float, typer.Option(help="Typical error of that reconstruction, in units of 1000 HU.")]
Progress = Annotated[bool, typer.Option(help="Show a progress bar.")]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a network is trained: the options of every ``train`` command."""

    steps: Annotated[int, typer.Option(help="Optimiser steps of the whole training.", min=1)] = 2000
    batch_size: Annotated[int, typer.Option(help="Slices of one step.", min=1)] = 8
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 4e-4
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.", min=1)] = 50
    ema_decay: Annotated[float, typer.Option(help="Decay of the averaged weights.")] = 0.995
    seed: opt.Seed = 0
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is split into, to save memory.", min=1)] = 1
    max_minutes: Annotated[float | None, typer.Option(help="Stop with a checkpoint after this time.")] = None
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no"
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network.")] = False
    channels_last: Annotated[bool, typer.Option("--channels-last", help="Memory format for GPUs.")] = False
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events to OUT/tensorboard.")] = (
        False
    )

    def config(self) -> Any:
        """The settings of the training loop."""
        from deft_ct.training import TrainingConfig  # brings accelerate along

        return TrainingConfig(**asdict(self))


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """What is simulated for the training: scans by name, or one in detail."""

    scan: Annotated[
        list[str] | None,
        typer.Option(
            "--scan", help="Scan by name, e.g. parallel60_1e5, instead of the options. Repeat to mix several."
        ),
    ] = None
    views: opt.Views = 60
    geometry: opt.Geometry = "parallel"
    degrees: opt.Degrees = None
    detectors: opt.Detectors = 364
    photons: opt.Photons = 1e5

    def scans(self) -> list[Scan]:
        """The scans, at least one."""
        if self.scan:
            return [Scan.from_name(name) for name in self.scan]
        return [opt.scan_of(self.views, self.geometry, self.degrees, self.photons, self.detectors)]


_GEOMETRIES, _NOISE_LEVELS = 32, 4
"""Random geometries of a training for any scan, and photon counts for each: setting one up takes seconds."""
_RESUME = "run the same command again to go on from the last checkpoint"

app = typer.Typer(no_args_is_help=True, help="Train a network. Run the same command again to resume.")


def read_source(data: str | None) -> CTPack | CTFolder:
    """The training slices of ``--data``."""
    if data is not None and Path(data).is_dir():
        return CTFolder(data)
    return CTPack(opt.pack_path(data) if data is not None else data_root() / "ct256" / "train.h5")


def _network(channels: str, patch: int = 4, layers: int = 1) -> UNetConfig:
    try:
        levels = tuple(int(part) for part in channels.split(","))
    except ValueError:
        raise ValueError(f"channels must be whole numbers separated by commas, got {channels!r}") from None
    return UNetConfig(channels=levels, attention=(False,) * len(levels), patch=patch, layers=layers)


def _measurements(scans: list[Scan], source: CTPack | CTFolder) -> list[Measurement]:
    typical = float(np.median(source.pixel_mm))
    return [scan.unit_measurement(source.image_shape, typical) for scan in scans]


def _with_random_scans(
    scans: list[Scan], family: ScanRange | None, source: CTPack | CTFolder, seed: int
) -> tuple[list[Measurement], list[float] | None]:
    """The measurements of a training and how often each is drawn: half of the steps are for scans of the family."""
    if family is None:
        return _measurements(scans, source), None
    drawn = family.draw(_GEOMETRIES, seed, levels=_NOISE_LEVELS)
    typical = float(np.median(source.pixel_mm))
    weights = [0.5 / len(scans)] * len(scans) + [0.5 / len(drawn)] * len(drawn)
    return unit_measurements(scans + drawn, source.image_shape, typical), weights


def _card(
    scans: list[Scan], source: CTPack | CTFolder, training: Any, family: ScanRange | None = None
) -> dict[str, Any]:
    """What a network was trained for and on; several scans, or a family of them, give ranges."""
    first, *others = [scan.to_dict() for scan in scans]
    described: dict[str, Any] = dict(first)
    for name in ("views", "photons", "degrees", "detectors"):
        values = [cast(float, entry[name]) for entry in (first, *others)]
        described[name] = [min(values), max(values)] if others else values[0]
    if others:
        described["geometry"] = sorted({str(entry["geometry"]) for entry in (first, *others)})
        described["name"] = [scan.name for scan in scans]
    if family is not None:
        described |= {"geometry": ["fan", "parallel"], "family": asdict(family), "name": [scan.name for scan in scans]}
        for name, limits in (("views", family.views), ("photons", family.photons)):
            values = [cast(float, scan.to_dict()[name]) for scan in scans]
            described[name] = [min(limits[0], *values), max(limits[1], *values)]
    for name, kind in (("degrees", "parallel"), ("fan_degrees", "fan")):
        arcs = [scan.degrees for scan in scans if scan.geometry == kind]
        arcs += [] if family is None else getattr(family, name)
        if arcs and (others or family is not None):
            described[name] = [min(arcs), max(arcs)]
    where = source.path if isinstance(source, CTPack) else source.root
    return {
        "scan": described, "data": {"name": where.name, "slices": len(source)}, "training_steps": training.steps,
        "batch_size": training.batch_size, "seed": training.seed,
    }  # fmt: skip


def _finish(folder: Path, sha256: str, save: Callable[[Path], object]) -> None:
    """Write a model, from one of several processes."""
    from deft_ct.training import is_main_process

    if is_main_process():
        save(folder)
        typer.echo(json.dumps({"model": str(folder), "sha256": sha256}))


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
    with one_line_errors(interrupted=_RESUME):
        from deft_ct.priors import load_prior, save_prior
        from deft_ct.priors.train import train_prior
        from deft_ct.schedule import BetaSchedule, Schedule

        source = read_source(data)
        made = train_prior(
            source, out, network=_network(channels, patch, layers),
            schedule=Schedule(kind=cast(BetaSchedule, schedule)), training=training.config(),
            image_size=source.image_shape[0], initial=None if initial is None else load_prior(initial),
            progress=progress,
        )  # fmt: skip
        _finish(out / "prior", made.content_hash(), lambda folder: save_prior(made, folder))


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
    with one_line_errors(interrupted=_RESUME):
        from deft_ct.htransform import HTransformConfig, load_htransform, load_refinement, save_htransform
        from deft_ct.htransform.control import ControlConfig, ControlObjective
        from deft_ct.htransform.control_train import SimulatedMeasurements, train_control
        from deft_ct.htransform.features import SPREAD_SLOPES
        from deft_ct.htransform.references import tabulate
        from deft_ct.htransform.train import train_htransform
        from deft_ct.priors import load_prior
        from deft_ct.simulation import PairSource
        from deft_ct.units import PriorRange

        frozen, source = load_prior(prior), read_source(data)
        scans, settings = simulated.scans(), training.config()
        family = ScanRange() if any_scan else None
        measurements, weights = _with_random_scans(scans, family, source, training.seed)
        first = None if initial is None else load_htransform(initial)
        refined = None if refinement is None else load_refinement(refinement)
        config = HTransformConfig(
            scan_features=any_scan, tv_iterations=tv_iterations,
            refinement=None if refined is None else refined.config,
            spread=HTransformConfig.spread if refined is None else refined.typical_error,
            spread_slopes=SPREAD_SLOPES if any_scan and reference == "tv" else (),
            reference=cast(Literal["none", "fbp", "tv"], reference),
            guidance=cast(GuidanceKind, guidance),
            network=_network(channels, _patch_of(frozen)),
        )  # fmt: skip
        if objective == "denoising":
            table = None
            if batches:
                pairs = PairSource(source, measurements, frozen.value_range or PriorRange(), weights=weights)
                table = tabulate(
                    pairs,
                    _table(batches, settings, tv_iterations, any_scan),
                    references or out / "references",
                    progress=progress,
                )
            head = train_htransform(
                source, frozen, measurements, out, config=config, initial=first, refinement=refined, weights=weights,
                table=table, training=settings, progress=progress,
            )  # fmt: skip
        else:
            if any_scan or len(measurements) != 1:
                raise ValueError(f"--objective {objective} trains for one scan: give one --scan, and no --any-scan")
            control = ControlConfig(objective=cast(ControlObjective, objective), steps=path_steps, paths=paths)
            head = train_control(
                SimulatedMeasurements(source, measurements[0], frozen, seed=training.seed), frozen, out, config=config,
                control=control, initial=first, training=settings, progress=progress,
            )  # fmt: skip
        head.card |= _card(scans, source, settings, family)
        _finish(out / "htransform", head.content_hash(), lambda folder: save_htransform(head, folder))


@app.command()
@grouped
def refinement(
    out: Out,
    data: Source = None,
    simulated: ScanOptions = ScanOptions(),
    any_scan: Annotated[
        bool, typer.Option("--any-scan", help="For any scan; half of the batches take the scans of --scan.")
    ] = False,
    batches: Annotated[int, typer.Option(help="Batches of references, tabulated before the training.", min=1)] = 600,
    tv_iterations: TVIterations = 40,
    channels: Channels = "32,64,96,128",
    patch: Patch = 2,
    initial: Annotated[Path | None, typer.Option(help="Go on from this refinement, with a new schedule.")] = None,
    training: TrainingOptions = TrainingOptions(learning_rate=6e-4, ema_decay=0.99),
    progress: Progress = True,
) -> None:
    """Train the refinement of the TV reference of an h-transform and write it to OUT/refinement."""
    with one_line_errors(interrupted=_RESUME):
        from deft_ct.htransform import load_refinement, save_refinement
        from deft_ct.htransform.features import SPREAD_SLOPES
        from deft_ct.htransform.refinement import RefinementConfig
        from deft_ct.htransform.refinement_train import train_refinement
        from deft_ct.simulation import PairSource
        from deft_ct.units import PriorRange

        source, scans, settings = read_source(data), simulated.scans(), training.config()
        family = ScanRange() if any_scan else None
        measurements, weights = _with_random_scans(scans, family, source, settings.seed)
        made = train_refinement(
            PairSource(source, measurements, PriorRange(), weights=weights), out,
            config=RefinementConfig(
                scan_features=any_scan, spread_slopes=SPREAD_SLOPES if any_scan else (),
                network=_network(channels, patch),
            ),
            table=_table(batches, settings, tv_iterations, any_scan), training=settings,
            initial=None if initial is None else load_refinement(initial), progress=progress,
        )  # fmt: skip
        made.card |= _card(scans, source, settings, family)
        _finish(out / "refinement", made.content_hash(), lambda folder: save_refinement(made, folder))


def _table(batches: int, training: Any, tv_iterations: int, any_scan: bool) -> Any:
    from deft_ct.htransform.references import TableConfig

    return TableConfig(
        batches=batches, batch_size=training.batch_size, tv_iterations=tv_iterations, scan_features=any_scan,
        seed=training.seed,
    )  # fmt: skip


def _patch_of(frozen: Any) -> int:
    """The stem of the prior's network, so that its weights can be taken over."""
    return int(getattr(getattr(frozen.network, "config", None), "patch", 4))


def _supervised(
    model_type: Any, shape: Any, out: Path, data: str | None, simulated: ScanOptions, training: TrainingOptions,
    progress: bool,
) -> None:  # fmt: skip
    from deft_ct.simulation import PairSource
    from deft_ct.supervised.train import train_model
    from deft_ct.units import PriorRange

    source, scans, settings = read_source(data), simulated.scans(), training.config()
    pairs = PairSource(source, _measurements(scans, source), PriorRange())
    made = train_model(model_type, shape, pairs, out, training=settings, progress=progress)
    made.card |= _card(scans, source, settings)
    _finish(out / "model", made.content_hash(), made.save)


@app.command("fbp-unet")
@grouped
def fbp_unet(
    out: Out,
    data: Source = None,
    simulated: ScanOptions = ScanOptions(),
    training: TrainingOptions = TrainingOptions(),
    reference: Reference = "fbp",
    spread: Spread = 0.1,
    channels: Channels = "64,96,128",
    patch: Patch = 4,
    progress: Progress = True,
) -> None:
    """Train FBP and U-Net and write it to OUT/model."""
    with one_line_errors(interrupted=_RESUME):
        from deft_ct.supervised.fbp_unet import FBPUNetModel, FBPUNetShape

        shape = FBPUNetShape(
            reference=cast(Literal["fbp", "tv"], reference), spread=spread, network=_network(channels, patch)
        )
        _supervised(FBPUNetModel, shape, out, data, simulated, training, progress)


@app.command("learned-primal-dual")
@grouped
def learned_primal_dual(
    out: Out,
    data: Source = None,
    simulated: ScanOptions = ScanOptions(),
    training: TrainingOptions = TrainingOptions(batch_size=4, learning_rate=1e-3),
    iterations: Annotated[int, typer.Option(help="Unrolled iterations.", min=1)] = 10,
    memory: Annotated[int, typer.Option(help="Images that are carried along.", min=2)] = 5,
    features: Annotated[int, typer.Option(help="Features of the hidden layers.", min=1)] = 32,
    start: Annotated[str, typer.Option(help="zero (as in the paper) or fbp.")] = "fbp",
    spread: Spread = 0.1,
    progress: Progress = True,
) -> None:
    """Train the learned primal-dual method and write it to OUT/model."""
    with one_line_errors(interrupted=_RESUME):
        from deft_ct.supervised.learned_primal_dual import PrimalDualModel, PrimalDualShape

        shape = PrimalDualShape(iterations=iterations, memory=memory, channels=features, start=start, spread=spread)
        _supervised(PrimalDualModel, shape, out, data, simulated, training, progress)


@app.command()
@grouped
def conditional(
    out: Out,
    data: Source = None,
    simulated: ScanOptions = ScanOptions(),
    training: TrainingOptions = TrainingOptions(steps=4000),
    reference: Reference = "fbp",
    residual: Annotated[bool, typer.Option(help="Diffuse what the reference leaves, not the image.")] = True,
    spread: Spread = 0.1,
    channels: Channels = "64,96,128",
    patch: Patch = 4,
    progress: Progress = True,
) -> None:
    """Train a conditional diffusion model from scratch and write it to OUT/model."""
    with one_line_errors(interrupted=_RESUME):
        from deft_ct.supervised.conditional import ConditionalModel, ConditionalShape

        shape = ConditionalShape(
            reference=cast(Literal["fbp", "tv"], reference), residual=residual, spread=spread,
            network=_network(channels, patch),
        )  # fmt: skip
        _supervised(ConditionalModel, shape, out, data, simulated, training, progress)


@app.command()
@grouped
def i2sb(
    out: Out,
    data: Source = None,
    simulated: ScanOptions = ScanOptions(),
    training: TrainingOptions = TrainingOptions(steps=4000),
    reference: Reference = "fbp",
    channels: Channels = "64,96,128",
    patch: Patch = 4,
    progress: Progress = True,
) -> None:
    """Train the Schroedinger bridge from a quick reconstruction to the image and write it to OUT/model."""
    with one_line_errors(interrupted=_RESUME):
        from deft_ct.supervised.i2sb import I2SBModel, I2SBShape

        shape = I2SBShape(reference=cast(Literal["fbp", "tv"], reference), network=_network(channels, patch))
        _supervised(I2SBModel, shape, out, data, simulated, training, progress)
