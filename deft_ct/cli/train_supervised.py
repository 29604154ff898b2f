"""``deft-ct train``: the supervised networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from deft_ct.cli.errors import one_line_errors
from deft_ct.cli.groups import grouped
from deft_ct.cli.training_options import (
    RESUME,
    Channels,
    Out,
    Patch,
    Progress,
    Reference,
    ScanOptions,
    Source,
    Spread,
    TrainingOptions,
    card_of,
    finish,
    measurements_of,
    network_from,
    read_source,
)


def _supervised(
    model_type: Any, shape: Any, out: Path, data: str | None, simulated: ScanOptions, training: TrainingOptions,
    initial: str | None, progress: bool,
) -> None:  # fmt: skip
    from deft_ct.ct.pairs import SlicePairs
    from deft_ct.measurement.scales import PriorRange
    from deft_ct.methods.supervised.train import train_model

    source, scans, settings = read_source(data), simulated.scans(), training.config()
    first = None if initial is None else model_type.load(initial)
    pairs = SlicePairs(source, measurements_of(scans, source), PriorRange())
    made = train_model(
        model_type, shape if first is None else first.shape, pairs, out, training=settings, initial=first,
        progress=progress,
    )  # fmt: skip
    made.card |= card_of(scans, source, settings) | ({} if first is None else {"initial_sha256": first.content_hash()})
    finish(out / "model", made.content_hash(), made.save)


Initial = Annotated[
    str | None,
    typer.Option(help="Go on from this model (folder or shipped name) with its shape, with a new schedule."),
]


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
    initial: Initial = None,
    progress: Progress = True,
) -> None:
    """Train FBP and U-Net and write it to OUT/model."""
    with one_line_errors(interrupted=RESUME):
        from deft_ct.methods.supervised.fbp_unet import FBPUNetModel, FBPUNetShape

        shape = FBPUNetShape(
            reference=cast(Literal["fbp", "tv"], reference), spread=spread, network=network_from(channels, patch)
        )
        _supervised(FBPUNetModel, shape, out, data, simulated, training, initial, progress)


@grouped
def learned_primal_dual(
    out: Out,
    data: Source = None,
    simulated: ScanOptions = ScanOptions(),
    training: TrainingOptions = TrainingOptions(batch_size=4),
    iterations: Annotated[int, typer.Option(help="Unrolled iterations.", min=1)] = 10,
    memory: Annotated[int, typer.Option(help="Images that are carried along.", min=2)] = 5,
    features: Annotated[int, typer.Option(help="Features of the hidden layers.", min=1)] = 32,
    start: Annotated[str, typer.Option(help="zero (as in the paper) or fbp.")] = "fbp",
    spread: Spread = 0.1,
    initial: Initial = None,
    progress: Progress = True,
) -> None:
    """Train the learned primal-dual method and write it to OUT/model."""
    with one_line_errors(interrupted=RESUME):
        from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel, PrimalDualShape

        shape = PrimalDualShape(iterations=iterations, memory=memory, channels=features, start=start, spread=spread)
        _supervised(PrimalDualModel, shape, out, data, simulated, training, initial, progress)


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
    initial: Initial = None,
    progress: Progress = True,
) -> None:
    """Train a conditional diffusion model from scratch and write it to OUT/model."""
    with one_line_errors(interrupted=RESUME):
        from deft_ct.methods.supervised.conditional import ConditionalModel, ConditionalShape

        shape = ConditionalShape(
            reference=cast(Literal["fbp", "tv"], reference), residual=residual, spread=spread,
            network=network_from(channels, patch),
        )  # fmt: skip
        _supervised(ConditionalModel, shape, out, data, simulated, training, initial, progress)


@grouped
def i2sb(
    out: Out,
    data: Source = None,
    simulated: ScanOptions = ScanOptions(),
    training: TrainingOptions = TrainingOptions(steps=4000),
    reference: Reference = "fbp",
    channels: Channels = "64,96,128",
    patch: Patch = 4,
    initial: Initial = None,
    progress: Progress = True,
) -> None:
    """Train the Schroedinger bridge from a quick reconstruction to the image and write it to OUT/model."""
    with one_line_errors(interrupted=RESUME):
        from deft_ct.methods.supervised.i2sb import I2SBModel, I2SBShape

        shape = I2SBShape(reference=cast(Literal["fbp", "tv"], reference), network=network_from(channels, patch))
        _supervised(I2SBModel, shape, out, data, simulated, training, initial, progress)
