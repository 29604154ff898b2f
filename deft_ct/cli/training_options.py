"""Options of the commands that train, each with one type and one help text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeVar

import typer

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.ct.scan import Scan
from deft_ct.workflows.train_priors import image_domain
from deft_ct.workflows.training_setup import TrainingData, random_scans, training_slices

if TYPE_CHECKING:  # imports accelerate, which takes seconds
    from deft_ct.training import TrainingConfig
    from deft_ct.workflows.train_photographs import DegradedPhotographs


def _typical(value: float) -> float:
    """The typical error, where the loss that it scales is still a number of single precision."""
    if not 1e-6 <= value <= 1e3:
        raise typer.BadParameter(f"it must lie in [1e-6, 1000], got {value}")
    return value


Channels = Annotated[
    str, typer.Option(help="Features of each level of a new network. With --initial, its shape is used.")
]
Patch = Annotated[int, typer.Option(help="Side of the space-to-depth stem in pixels.", min=1)]
Initial = Annotated[
    str | None,
    typer.Option(
        help="Trained network to start from: a folder, a shipped name or hf:OWNER/NAME. Its shape is used, with a new "
        "learning rate schedule."
    ),
]
AnyScan = Annotated[
    bool | None,
    typer.Option(
        "--any-scan/--one-scan",
        help="Use random scans in half of the steps. Default: off. In finetune: on if the initial h-transform was "
        "trained for any scan.",
    ),
]
AnyStart = Annotated[
    bool,
    typer.Option(
        "--any-start", help="With --any-scan: limited arcs start at any angle, and the network is given the angle."
    ),
]
InitialReconstruction = Annotated[
    Literal["auto", "none", "fbp", "tv", "data"],
    typer.Option(
        help="Reconstruction that the network starts from; data is an image of the data that keeps noise small. Some "
        "networks need fbp or tv. auto is tv for CT, and data for photographs that have it."
    ),
]
TVIterations = Annotated[int, typer.Option(help="Iterations of the TV initial reconstruction.", min=1)]
TypicalError = Annotated[
    float,
    typer.Option(
        callback=_typical, help="Typical error of the initial reconstruction in units of 1000 HU. It scales the loss."
    ),
]
Batches = Annotated[
    int,
    typer.Option(
        help="Batches of initial reconstructions that are computed before the training. 0: new ones at every step, "
        "only for htransform.",
        min=0,
    ),
]
RESUME = "run the same command again to resume from the last checkpoint"


@contextmanager
def training_job(out: Path) -> Iterator[None]:
    """Failures in one line, see :func:`~deft_ct.cli.errors.one_line_errors`, in a folder that is held until the end.

    Without it, a second command would notice the first one only after its table of initial reconstructions.
    """
    with one_line_errors(interrupted=RESUME):
        from deft_ct.training import training_folder

        with training_folder(out):
            yield


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Settings of the training loop: the options of every ``train`` command."""

    steps: Annotated[int, typer.Option(help="Optimiser steps of the whole training.", min=1)] = 2000
    batch_size: opt.BatchSize = 8
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3
    optimizer: Annotated[
        Literal["muon", "adamw"], typer.Option(help="Optimiser. adamw needs about a fifth of the learning rate.")
    ] = "muon"
    momentum: Annotated[float, typer.Option(help="Momentum of muon.")] = 0.95
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.", min=1)] = 50
    ema_decay: Annotated[float, typer.Option(help="Decay of the averaged weights.")] = 0.995
    seed: opt.Seed = 0
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is split into, to save memory.", min=1)] = 1
    max_minutes: opt.MaxMinutes = None
    precision: opt.PrecisionName = "float32"
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile.")] = False
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Use the channels-last memory format, faster on GPUs.")
    ] = False
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events to OUT/tensorboard.")] = (
        False
    )
    overwrite: opt.Overwrite = False

    def config(self) -> TrainingConfig:
        """The settings of the training loop."""
        from deft_ct.training import TrainingConfig

        return TrainingConfig(**vars(self))


@dataclass(frozen=True, kw_only=True)
class TrainingScans(opt.ScanOptions):
    """Scans of a training. The detector may be given, too."""

    detectors: opt.Detectors = None

    def scans(self) -> list[Scan]:
        """The scans, at least one; one that is named twice is drawn twice as often.

        Raises:
            ValueError: there are names and values, or a value is out of range.
        """
        once = super().scans()
        return [Scan.from_name(name) for name in self.scan] if self.scan else once


def scanned_slices(
    data: str, simulated: TrainingScans, *, any_scan: bool | None = None, any_start: bool = False
) -> TrainingData:
    """Slices and scans of a training.

    Args:
        data: see ``training_slices``.
        simulated: fixed scans.
        any_scan: whether there are random scans, too.
        any_start: whether their limited arcs start anywhere.
    """
    random, scans = random_scans(bool(any_scan), any_start), simulated.scans()  # wrong options before missing data
    return TrainingData(slices=training_slices(data), scans=scans, scan_range=random)


@dataclass(frozen=True, kw_only=True)
class DegradationOptions:
    """Degradations of photographs in a training."""

    operator: opt.OperatorName = None
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="SIGMA", help="Standard deviation of the noise on images in [-1, 1]. Default: of the operator."
        ),
    ] = None
    draws: Annotated[
        int, typer.Option(help="Random masks, kernels or transforms of a degradation that has such.", min=1)
    ] = 64

    def given(self) -> bool:
        """Whether there is a degradation."""
        return self.operator is not None or self.noise is not None

    def photographs(self, data: str) -> DegradedPhotographs:
        """The photographs of ``--data`` with these degradations.

        Raises:
            ValueError: there is no degradation, or it is unknown.
        """
        from deft_ct.workflows.train_photographs import DegradedPhotographs, parse_operators

        tasks = parse_operators(self.operator, self.noise)
        return DegradedPhotographs(domain=image_domain(data), tasks=tasks, draws=self.draws)


class Hashed(Protocol):
    """A model with a hash of its weights."""

    def content_hash(self) -> str:
        """SHA-256."""
        ...


Made = TypeVar("Made", bound=Hashed)


def finish(folder: Path, made: Made | None, save: Callable[[Made, Path], object]) -> None:
    """Write a model from the main process, and print its folder and hash.

    Args:
        folder: of the model.
        made: the model; None if the time limit came before there was one.
        save: writes a model to a folder.
    """
    from deft_ct.training import is_main_process

    if made is None:
        log_once("stopped by the time limit before the initial reconstructions were complete; run again to resume")
        return
    if is_main_process():
        save(made, folder)
        typer.echo(json.dumps({"model": str(folder), "sha256": made.content_hash()}))


def log_once(text: str) -> None:
    """Print a line to standard error from the main process."""
    from deft_ct.training import is_main_process

    if is_main_process():
        typer.echo(text, err=True)
