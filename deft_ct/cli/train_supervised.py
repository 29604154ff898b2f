"""``deft-ct train``: the supervised networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from deft_ct.cli import options as opt
from deft_ct.cli.groups import grouped
from deft_ct.cli.training_options import (
    AnyScan,
    AnyStart,
    Channels,
    Initial,
    InitialReconstruction,
    Patch,
    TrainingOptions,
    TrainingScans,
    TypicalError,
    finish,
    training_job,
)
from deft_ct.ct.scan_range import ScanRange
from deft_ct.datasets.backbones import is_backbones
from deft_ct.workflows.training_setup import TrainingData, new_network, random_scans, training_slices


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options of every supervised network, except for its shape and the training."""

    out: opt.Out
    data: opt.Data = "train"
    initial: Initial = None
    progress: opt.Progress = True


def _train(
    model_type: Any, shape: Any, common: CommonOptions, simulated: TrainingScans, training: TrainingOptions,
    scan_range: ScanRange | None = None,
) -> None:  # fmt: skip
    from deft_ct.workflows.train_networks import load_initial, model_on_slices

    config, scans = training.config(), simulated.scans()
    data = TrainingData(slices=training_slices(common.data), scans=scans, scan_range=scan_range)
    initial = None if common.initial is None else load_initial(model_type, common.initial, scan_range)
    made = model_on_slices(model_type(shape), data, common.out, config, initial=initial, progress=common.progress)
    finish(common.out / "model", made, model_type.save)


def _quick(name: str) -> Literal["fbp", "tv"]:
    """The initial reconstruction of a network that needs one."""
    if name not in ("fbp", "tv"):
        raise ValueError(f"this network needs an initial reconstruction: fbp or tv, got {name}")
    return name  # type: ignore[return-value]


@grouped
def fbp_unet(
    common: CommonOptions,
    simulated: TrainingScans = TrainingScans(),
    training: TrainingOptions = TrainingOptions(),
    initial_reconstruction: InitialReconstruction = "fbp",
    typical_error: TypicalError = 0.1,
    channels: Channels = "64,96,128",
    patch: Patch = 4,
) -> None:
    """Train FBP followed by a U-Net and write the model to OUT/model.

    Example: `deft-ct train fbp-unet --scan parallel60_1e5 --steps 4700 --out OUT`
    """
    with training_job(common.out):
        from deft_ct.methods.supervised.fbp_unet import FBPUNetModel, FBPUNetShape

        shape = FBPUNetShape(
            reference=_quick(initial_reconstruction), spread=typical_error, network=new_network(channels, patch)
        )
        _train(FBPUNetModel, shape, common, simulated, training)


@grouped
def learned_primal_dual(
    common: CommonOptions,
    simulated: TrainingScans = TrainingScans(),
    any_scan: AnyScan = None,
    any_start: AnyStart = False,
    training: TrainingOptions = TrainingOptions(batch_size=4),
    iterations: Annotated[int, typer.Option(help="Unrolled iterations.", min=1)] = 10,
    memory: Annotated[int, typer.Option(help="Images that each iteration passes to the next one.", min=2)] = 5,
    features: Annotated[int, typer.Option(help="Features of the hidden layers.", min=1)] = 32,
    initial_reconstruction: InitialReconstruction = "fbp",
    typical_error: TypicalError = 0.1,
) -> None:
    """Train the learned primal-dual method and write it to OUT/model.

    Example: `deft-ct train learned-primal-dual --scan parallel60_1e5 --steps 2400 --batch-size 4 --out OUT`

    --initial-reconstruction none starts at a zero image, as in the paper. tv is not possible. With --any-scan,
    --initial may be a network for fixed scans: training starts from its weights.
    """
    with training_job(common.out):
        from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel, PrimalDualShape

        scan_range = random_scans(bool(any_scan), any_start)
        shape = PrimalDualShape(
            iterations=iterations, memory=memory, channels=features, spread=typical_error,
            start="zero" if initial_reconstruction == "none" else initial_reconstruction,
            scan_features=scan_range is not None,
        )  # fmt: skip
        _train(PrimalDualModel, shape, common, simulated, training, scan_range)


@grouped
def conditional(
    common: CommonOptions,
    simulated: TrainingScans = TrainingScans(),
    training: TrainingOptions = TrainingOptions(steps=4000),
    initial_reconstruction: InitialReconstruction = "fbp",
    residual: Annotated[
        bool, typer.Option(help="Diffuse the error of the initial reconstruction instead of the image.")
    ] = True,
    typical_error: TypicalError = 0.1,
    channels: Channels = "64,96,128",
    patch: Patch = 4,
) -> None:
    """Train a conditional diffusion model and write it to OUT/model.

    Example: `deft-ct train conditional --scan parallel60_1e5 --steps 2000 --out OUT`
    """
    with training_job(common.out):
        from deft_ct.methods.supervised.conditional import ConditionalModel, ConditionalShape

        shape = ConditionalShape(
            reference=_quick(initial_reconstruction), residual=residual, spread=typical_error,
            network=new_network(channels, patch),
        )  # fmt: skip
        _train(ConditionalModel, shape, common, simulated, training)


@grouped
def i2sb(
    common: CommonOptions,
    simulated: TrainingScans = TrainingScans(),
    training: TrainingOptions = TrainingOptions(steps=4000),
    initial_reconstruction: InitialReconstruction = "fbp",
    channels: Channels = "64,96,128",
    patch: Patch = 4,
) -> None:
    """Train the Schroedinger bridge from an initial reconstruction to the image and write it to OUT/model.

    Example: `deft-ct train i2sb --scan parallel60_1e5 --steps 2000 --out OUT`
    """
    with training_job(common.out):
        from deft_ct.methods.supervised.i2sb import I2SBModel, I2SBShape

        shape = I2SBShape(reference=_quick(initial_reconstruction), network=new_network(channels, patch))
        _train(I2SBModel, shape, common, simulated, training)


@grouped
def amortised(common: CommonOptions, training: TrainingOptions = TrainingOptions(steps=4000, batch_size=16)) -> None:
    """Fine-tune a whole prior of backbones to scaffold motifs and write it to OUT/model.

    Example: `deft-ct train amortised --data backbones:FILE --initial PRIOR --out OUT`

    --initial is the prior, or an earlier result. `deft-ct scaffold --method amortised --model amortised=OUT/model` then
    uses the model.
    """
    with training_job(common.out):
        from deft_ct.workflows.train_backbones import amortised_on_backbones

        config = training.config()
        if not is_backbones(common.data):
            raise ValueError(f"this is trained on chains: give --data backbones:FILE, got {common.data!r}")
        made = amortised_on_backbones(common.data, common.out, common.initial, config, progress=common.progress)
        finish(common.out / "model", made, type(made).save)
