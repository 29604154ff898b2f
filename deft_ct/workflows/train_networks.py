"""Train an h-transform, its refinement network or a supervised model on simulated scans of CT slices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from deft_ct.ct.scan_range import ScanRange
from deft_ct.diffusion import Prior, load_prior
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import HTransform, HTransformConfig, load_htransform, load_refinement
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES
from deft_ct.methods.deft.control import ControlConfig
from deft_ct.methods.deft.initial_table import second_name, tabulate
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.train import HTransformTraining, train_htransform
from deft_ct.methods.deft.train_control import ControlTraining, SimulatedMeasurements, train_control
from deft_ct.methods.deft.train_refinement import Tabulated, train_refinement, with_second
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel, PrimalDualShape
from deft_ct.methods.supervised.train import Model, train_model
from deft_ct.runtime.fields import check_fields
from deft_ct.training import TimeLimit, TrainingConfig
from deft_ct.training.blocks import RECORD
from deft_ct.training.pairs import PairSource
from deft_ct.workflows.training_setup import TrainingData, htransform_network, new_network, table_config

Loss = Literal["denoising", "log-variance", "trajectory-balance"]
Initial = Literal["none", "fbp", "tv", "data"]
AUTO: Literal["auto"] = "auto"
"""Name of the usual initial reconstruction, or guidance, of the images."""


@dataclass(frozen=True, kw_only=True)
class HTransformRecipe:
    """How an h-transform is trained.

    Args:
        training: settings of the training loop.
        prior: path or name of the frozen prior; the shipped one if None.
        initial: path or name of an h-transform to start from.
        initial_reconstruction: ``"none"``, ``"fbp"``, ``"tv"``, ``"data"`` or ``"auto"``.
        tv_iterations: iterations of the TV reconstruction.
        refinement: folder of a trained refinement network.
        guidance: how the data enter the network, see :data:`~deft_ct.methods.deft.guidance.GUIDANCES`; or ``"auto"``.
        channels: features of each level of a new network; of backbones one number.
        batches: batches of initial reconstructions that are tabulated before the training; 0 for none.
        table: folder of the table; ``references`` in the output folder if None.
        loss: ``"denoising"`` needs images. ``"log-variance"`` and ``"trajectory-balance"`` need only measurements of
            one scan.
        paths: sampling paths of each measurement, without images.
        path_steps: network evaluations of each path, without images.

    Raises:
        ValueError: a value is out of range.
    """

    training: TrainingConfig
    prior: str | None = None
    initial: str | None = None
    initial_reconstruction: Initial | Literal["auto"] = AUTO
    tv_iterations: int = 16
    refinement: Path | None = None
    guidance: str = AUTO
    channels: str = "64,96,128"
    batches: int = 0
    table: Path | None = None
    loss: Loss = "denoising"
    paths: int = 8
    path_steps: int = 25

    def __post_init__(self) -> None:
        check_fields(self)
        ControlConfig(steps=self.path_steps, paths=self.paths)
        if self.batches < 0:
            raise ValueError(f"batches must be at least 0, got {self.batches}")
        if self.refinement is not None and self.loss != "denoising":
            raise ValueError(f"--loss {self.loss} does not use a refinement: leave --refinement out")
        if self.table is not None and not self.batches:
            raise ValueError("a table needs its number of batches: give --batches as in the training that made it")
        table_config(max(1, self.batches), self.training, self.tv_iterations, None)


def htransform_on_slices(
    data: TrainingData, out: Path, settings: HTransformRecipe, *, progress: bool = False
) -> HTransform | None:
    """Train an h-transform on CT slices. The same call resumes.

    Args:
        data: slices and scans.
        out: folder of the checkpoints; the caller saves the result.
        settings: how it is trained.
        progress: show progress bars.

    Returns:
        The h-transform with its model card; None if ``max_minutes`` ended the work before the table was complete.

    Raises:
        ValueError: the settings do not fit together.
        FileNotFoundError: a network or the table does not exist.
    """
    new_network(settings.channels)  # refuses others before any work
    if settings.loss != "denoising" and (data.scan_range is not None or len(data.scans) != 1):
        raise ValueError(f"--loss {settings.loss} trains for one scan: give one --scan, and no --any-scan")
    if settings.table is not None and not (settings.table / RECORD).is_file():
        raise FileNotFoundError(f"{settings.table} is no table of initial reconstructions: it holds no {RECORD}")
    initial = "tv" if settings.initial_reconstruction == AUTO else settings.initial_reconstruction
    limit = TimeLimit(settings.training)
    frozen, training, random = load_prior(settings.prior), settings.training, data.scan_range
    first = None if settings.initial is None else load_htransform(settings.initial)
    refined = None if settings.refinement is None else load_refinement(settings.refinement)
    second = None if refined is None else refined.second
    if second is not None:
        second.precision = training.precision
    config = HTransformConfig(
        scan_features=random is not None,
        arc_direction=random is not None and random.any_start,
        tv_iterations=settings.tv_iterations,
        refinement=None if refined is None else refined.config,
        spread=0.0 if refined is None else refined.typical_error,
        spread_slopes=SPREAD_SLOPES if random is not None and initial == "tv" else (),
        reference=initial,
        guidance="fbp" if settings.guidance == AUTO else settings.guidance,
        network=htransform_network(frozen, settings.channels) if first is None else first.config.network,
    )
    pairs = data.pairs(training.seed, frozen.value_range or PriorRange())
    if settings.loss != "denoising":
        made = htransform_by_control(pairs, frozen, out, settings, config, initial=first, progress=progress)
    else:
        table = None
        if settings.batches:
            table = tabulate(
                pairs,
                table_config(settings.batches, training, settings.tv_iterations, random, second_name(second)),
                settings.table or out / "references",
                second=second,
                overwrite=training.overwrite and settings.table is None,  # the table of another training is not ours
                should_stop=limit.reached,
                progress=progress,
            )
            if table is None:
                return None
        made = train_htransform(
            pairs, frozen, out, config=config, training=limit.rest(training),
            options=HTransformTraining(initial=first, refinement=refined, table=table), progress=progress,
        )  # fmt: skip
    made.card |= data.card(training, out)
    return made


LARGER_TABLE = 1 / 16
"""Batches that are tabulated of slices with more pixels, which cost more, for each batch of the others."""


@dataclass(frozen=True, kw_only=True)
class RefinementRecipe:
    """How a refinement network is trained.

    Args:
        training: settings of the training loop.
        initial: folder of a refinement network to start from.
        batches: batches of initial reconstructions that are tabulated before the training.
        tv_iterations: iterations of the TV reconstruction.
        channels: features of each level of a new network.
        patch: side of the space-to-depth stem in pixels.
        mirror: at inference, average with the results of mirrored inputs.
        second: trained model whose image the network sees beside the initial reconstruction. None takes that of
            ``initial``, if it has one.

    Raises:
        ValueError: a value is out of range.
    """

    training: TrainingConfig
    initial: str | None = None
    batches: int = 600
    tv_iterations: int = 40
    channels: str = "32,64,96,128"
    patch: int = 2
    mirror: bool = False
    second: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        new_network(self.channels, self.patch)
        table_config(self.batches, self.training, self.tv_iterations, None)


def htransform_by_control(
    pairs: PairSource,
    prior: Prior,
    out: Path,
    settings: HTransformRecipe,
    config: HTransformConfig,
    *,
    initial: HTransform | None,
    progress: bool,
) -> HTransform:
    """Train an h-transform without images, for the one measurement of ``pairs``.

    Args:
        pairs: give simulated data.
        prior: stays as it is.
        out: folder of the checkpoints.
        settings: the training, with a loss that needs no images.
        config: of the h-transform.
        initial: where the training starts; random weights if None.
        progress: show a progress bar.
    """
    assert settings.loss != "denoising", "that loss needs images"
    control = ControlConfig(objective=settings.loss, steps=settings.path_steps, paths=settings.paths)
    return train_control(
        SimulatedMeasurements(pairs, seed=settings.training.seed), prior, out,
        ControlTraining(config=config, training=settings.training, initial=initial, control=control), progress=progress,
    )  # fmt: skip


def refinement_on_slices(
    data: TrainingData, out: Path, settings: RefinementRecipe, *, larger: TrainingData | None = None,
    progress: bool = False,
) -> Refinement | None:  # fmt: skip
    """Train the refinement network of TV reconstructions on CT slices. The same call resumes.

    Args:
        data: slices and scans.
        out: folder of the table and the checkpoints; the caller saves the result.
        settings: how it is trained.
        larger: slices with more pixels, and their scans; crops of them are a part of the batches.
        progress: show progress bars.

    Returns:
        The refinement network with its model card; None if ``max_minutes`` ended the work before the table was
        complete.
    """
    training, random = settings.training, data.scan_range
    first = None if settings.initial is None else load_refinement(settings.initial)
    second = first.second if settings.second is None and first is not None else None
    second = second if settings.second is None else PrimalDualModel.load(settings.second)
    config = RefinementConfig(
        scan_features=random is not None, arc_direction=random is not None and random.any_start,
        mirror=settings.mirror, spread_slopes=SPREAD_SLOPES if random is not None else (),
        network=new_network(settings.channels, settings.patch) if first is None else first.config.network,
        second=None if second is None else second.shape,
    )  # fmt: skip
    start = first
    if second is not None:
        second.precision = training.precision
        start = with_second(config, second, initial=first, seed=training.seed)
    table = table_config(settings.batches, training, settings.tv_iterations, random, second_name(second))
    made = train_refinement(
        Tabulated(pairs=data.pairs(training.seed), table=table), out, config=config, training=training, initial=start,
        larger=None if larger is None else Tabulated(
            pairs=larger.pairs(training.seed), table=replace(table, batches=math.ceil(settings.batches * LARGER_TABLE))
        ),
        progress=progress,
    )  # fmt: skip
    if made is None:
        return None
    made.card |= data.card(training, out)
    if second is not None:
        made.card["second"] = second_card(second, first)
    if larger is not None:
        made.card["larger"] = larger.card(training, out)
    return made


def second_card(second: PrimalDualModel, first: Refinement | None) -> dict[str, Any]:
    """What the card of a refinement says of the model of its second reconstruction."""
    sha256 = second.content_hash()
    known = {} if first is None else first.card.get("second", {})
    return known if known.get("sha256") == sha256 else {"sha256": sha256, "card": second.card}


def model_on_slices(
    new: Model, data: TrainingData, out: Path, training: TrainingConfig, *, initial: Model | None = None,
    progress: bool = False,
) -> Model:  # fmt: skip
    """Train a supervised model on CT slices. The same call resumes.

    Args:
        new: model of the wanted kind and shape; its weights are not used.
        data: slices and scans.
        out: folder of the checkpoints; the caller saves the result.
        training: settings of the training loop.
        initial: trained model to start from, in the place of ``new``.
        progress: show progress bars.

    Returns:
        The model with its model card.
    """
    start = new if initial is None else initial
    made = train_model(
        type(start), start.shape, data.pairs(training.seed), out, training=training, initial=initial, progress=progress
    )
    made.card |= data.card(training, out)
    made.card |= {} if initial is None else {"initial_sha256": initial.content_hash()}
    return made


def load_initial(model_type: type[Model], name: str, scan_range: ScanRange | None) -> Model:
    """A trained model to start from; for random scans, a learned primal-dual network gets an embedding of the scan.

    Args:
        model_type: kind of the model.
        name: path, or name of a shipped model.
        scan_range: random scans of the training, or None.
    """
    loaded: Any = model_type.load(name)
    if scan_range is not None and isinstance(loaded, PrimalDualModel):
        loaded = primal_dual_for_any_scan(loaded)
    return cast(Model, loaded)


def primal_dual_for_any_scan(model: PrimalDualModel) -> PrimalDualModel:
    """A learned primal-dual network for any scan with the weights of one for fixed scans.

    The embedding of the scan starts at zero, so features are not modulated at first. A network that is already
    for any scan is returned unchanged.
    """
    if model.shape.scan_features:
        return model
    shape = PrimalDualShape(**{**vars(model.shape), "scan_features": True})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same start in every call, or a training could not resume
        larger = PrimalDualModel(shape, value_range=model.value_range)
    larger.load_state_dict(larger.state_dict() | model.state_dict())
    return larger
