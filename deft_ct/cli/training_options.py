"""What the commands that train share: options, slices and scans, the card of the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from deft_ct.cli import options as opt
from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange, unit_measurements
from deft_ct.datasets.dicom_folder import CTFolder
from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.measurement.measurement import Measurement
from deft_ct.networks import UNetConfig

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the checkpoint, the log and the result.")]
Source = Annotated[
    str | None,
    typer.Option("--data", help="HDF5 pack, a folder of CT (DICOM, NIfTI, HDF5), or a pack's name; train by default."),
]
Channels = Annotated[
    str, typer.Option(help="Features of each level of a new network; one that goes on keeps its shape.")
]
Patch = Annotated[int, typer.Option(help="Side of the space-to-depth stem.", min=1)]
AnyStart = Annotated[
    bool,
    typer.Option("--any-start", help="With --any-scan: limited arcs start anywhere, and the network is told where."),
]
Reference = Annotated[str, typer.Option(help="Reconstruction that the network starts from: fbp or tv.")]
TVIterations = Annotated[int, typer.Option(help="Iterations of the TV reference.", min=1)]
Spread = Annotated[float, typer.Option(help="Typical error of that reconstruction, in units of 1000 HU.")]
Progress = Annotated[bool, typer.Option(help="Show a progress bar.")]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a network is trained: the options of every ``train`` command."""

    steps: Annotated[int, typer.Option(help="Optimiser steps of the whole training.", min=1)] = 2000
    batch_size: Annotated[int, typer.Option(help="Slices of one step.", min=1)] = 8
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3
    optimizer: Annotated[str, typer.Option(help="muon, or adamw with a fifth of the learning rate.")] = "muon"
    momentum: Annotated[float, typer.Option(help="Of muon.")] = 0.95
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.", min=1)] = 50
    ema_decay: Annotated[float, typer.Option(help="Decay of the averaged weights.")] = 0.995
    seed: opt.Seed = 0
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is split into, to save memory.", min=1)] = 1
    max_minutes: Annotated[float | None, typer.Option(help="Stop with a checkpoint after this time.")] = None
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32"
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
    detectors: opt.Detectors = None
    photons: opt.Photons = 1e5

    def scans(self) -> list[Scan]:
        """The scans, at least one."""
        if self.scan:
            return [Scan.from_name(name) for name in self.scan]
        return [opt.scan_of(self.views, self.geometry, self.degrees, self.photons, self.detectors)]


GEOMETRIES, NOISE_LEVELS = 96, 4
"""Random geometries of a training for any scan, and photon counts for each: setting one up takes seconds."""
RESUME = "run the same command again to go on from the last checkpoint"


def read_source(data: str | None) -> CTPack | CTFolder:
    """The training slices of ``--data``."""
    if data is not None and Path(data).is_dir():
        return CTFolder(data)
    return CTPack(opt.pack_path(data) if data is not None else data_root() / "ct256" / "train.h5")


NORM_GROUPS = 8
"""Groups of normalised features in new networks: large ones leave the levels of features that the networks need."""


def network_from(channels: str, patch: int = 4, layers: int = 1) -> UNetConfig:
    """The shape of a network without attention, of channels as ``"64,96,128"``."""
    try:
        levels = tuple(int(part) for part in channels.split(","))
    except ValueError:
        raise ValueError(f"channels must be whole numbers separated by commas, got {channels!r}") from None
    return UNetConfig(
        channels=levels, attention=(False,) * len(levels), patch=patch, layers=layers, norm_groups=NORM_GROUPS,
        scale_shift=True,
    )  # fmt: skip


def measurements_of(scans: list[Scan], source: CTPack | CTFolder) -> list[Measurement]:
    """The scans in units of the pixel of the slices."""
    typical = float(np.median(source.pixel_mm))
    return [scan.unit_measurement(source.image_shape, typical) for scan in scans]


def family_of(any_scan: bool, any_start: bool) -> ScanRange | None:
    """The random scans of a training, if there are any.

    Raises:
        ValueError: random starts of no random scans.
    """
    if any_start and not any_scan:
        raise ValueError("--any-start is for random scans: give --any-scan, too")
    return ScanRange(any_start=any_start) if any_scan else None


def with_random_scans(
    scans: list[Scan], family: ScanRange | None, source: CTPack | CTFolder, seed: int
) -> tuple[list[Measurement], list[float] | None]:
    """The measurements of a training and how often each is drawn: half of the steps are for scans of the family."""
    if family is None:
        return measurements_of(scans, source), None
    drawn = family.draw(GEOMETRIES, seed, levels=NOISE_LEVELS)
    typical = float(np.median(source.pixel_mm))
    weights = [0.5 / len(scans)] * len(scans) + [0.5 / len(drawn)] * len(drawn)
    return unit_measurements(scans + drawn, source.image_shape, typical), weights


def card_of(
    scans: list[Scan], source: CTPack | CTFolder, training: Any, family: ScanRange | None = None
) -> dict[str, Any]:
    """What a network was trained for and on; several scans, or a family of them, give ranges."""
    first, *others = [scan.to_dict() for scan in scans]
    described: dict[str, Any] = dict(first)
    for name in ("views", "photons", "degrees"):
        values = [cast(float, entry[name]) for entry in (first, *others)]
        described[name] = [min(values), max(values)] if others else values[0]
    if others:
        given = [scan.detectors for scan in scans if scan.detectors is not None]
        described |= {"detectors": [min(given), max(given)]} if given else {}
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
    starts = {scan.start for scan in scans if not scan.full} | ({0.0} if family is not None else set())
    if family is not None and family.any_start:
        described["start_degrees"] = "any"
    elif any(starts):
        described["start_degrees"] = sorted(starts)
    where = source.path if isinstance(source, CTPack) else source.root
    return {
        "scan": described, "data": {"name": where.name, "slices": len(source)}, "training_steps": training.steps,
        "batch_size": training.batch_size, "seed": training.seed,
    }  # fmt: skip


def finish(folder: Path, sha256: str, save: Callable[[Path], object]) -> None:
    """Write a model, from one of several processes."""
    from deft_ct.training import is_main_process

    if is_main_process():
        save(folder)
        typer.echo(json.dumps({"model": str(folder), "sha256": sha256}))


def table_of(batches: int, training: Any, tv_iterations: int, family: ScanRange | None) -> Any:
    """What a table of references holds."""
    from deft_ct.methods.deft.initial_table import TableConfig

    return TableConfig(
        batches=batches, batch_size=training.batch_size, tv_iterations=tv_iterations,
        scan_features=family is not None, arc_direction=family is not None and family.any_start, seed=training.seed,
    )  # fmt: skip


def head_network(frozen: Any, channels: str) -> UNetConfig:
    """The shape of a new head: as its prior's but for the channels, so that the weights can be taken over."""
    own = getattr(frozen.network, "config", None)
    if not isinstance(own, UNetConfig):
        return network_from(channels)
    shape = network_from(channels, own.patch)
    return replace(shape, norm_groups=own.norm_groups, scale_shift=own.scale_shift)
