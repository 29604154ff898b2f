"""Fit a trained h-transform to CT slices of your own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from deft_ct.ct.scan import Scan
from deft_ct.workflows.training_setup import FolderSource, TrainingData, random_scans

if TYPE_CHECKING:  # these import accelerate, which takes seconds
    from deft_ct.ct.pairs import SlicePairs
    from deft_ct.methods.deft import HTransform
    from deft_ct.methods.deft.refinement import Refinement
    from deft_ct.methods.initial import Reference
    from deft_ct.training import TrainingConfig

PASSES = 3
"""How often a tabulated initial reconstruction is used."""


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How an h-transform is fitted.

    Args:
        training: settings of the training loop.
        scans: scans to train for.
        any_scan: use random scans in half of the steps. None: if the initial h-transform was trained for any scan.
        initial: path or name of the initial h-transform; the shipped one if None.
        prior: path or name of its prior; the shipped one if None.
        refinement_steps: steps for the refinement network of the initial h-transform, which is trained first. 0 keeps
            it unchanged.
        refinement_rate: peak learning rate of these steps.

    Raises:
        ValueError: a value is out of range.
    """

    training: TrainingConfig
    scans: tuple[Scan, ...] = (Scan(),)
    any_scan: bool | None = None
    initial: str | None = None
    prior: str | None = None
    refinement_steps: int = 200
    refinement_rate: float = 2e-3

    def __post_init__(self) -> None:
        if self.refinement_steps < 0:
            raise ValueError(f"refinement_steps must be at least 0, got {self.refinement_steps}")
        try:
            self.of_refinement()
        except ValueError as error:
            raise ValueError(f"refinement_steps or refinement_rate: {error}") from None

    def of_refinement(self) -> TrainingConfig:
        """Settings of the training of the refinement network."""
        return replace(self.training, steps=max(1, self.refinement_steps), learning_rate=self.refinement_rate)


def finetune(
    source: FolderSource,
    out: Path,
    settings: FinetuneSettings,
    *,
    log: Callable[[str], None] | None = None,
    progress: bool = False,
) -> HTransform | None:
    """Fit an h-transform to a folder of CT slices. The same call resumes.

    The prior stays frozen. The refinement network is fitted first, to initial reconstructions that are tabulated in
    ``out/refinement``. Then the h-transform network is fitted around it, with data that are simulated at each step.

    Args:
        source: the slices.
        out: folder of the checkpoints; the caller saves the result.
        settings: how it is fitted.
        log: called with a line about the slices that were found.
        progress: show progress bars.

    Returns:
        The h-transform with its model card; None if the time limit, which is that of all parts together, came before
        the refinement was finished.

    Raises:
        ValueError: unusable slices, or random scans for an h-transform that is not conditioned on the scan.
        FileNotFoundError: the slices, the prior or the initial h-transform do not exist.
    """
    from deft_ct.diffusion import load_prior
    from deft_ct.methods.deft import load_htransform
    from deft_ct.methods.deft.train import HTransformTraining, train_htransform
    from deft_ct.training import TimeLimit, training_record

    limit = TimeLimit(settings.training)
    source.check()
    frozen, first = load_prior(settings.prior), load_htransform(settings.initial)
    if settings.any_scan and not first.config.scan_features:
        raise ValueError(
            "the initial h-transform is not conditioned on the scan: give --one-scan, or train a new one for any scan"
        )
    slices = source.read(frozen.image_shape[-1])
    if log is not None:
        series = len({slices[n].group for n in range(len(slices))})
        size = " x ".join(map(str, frozen.image_shape[-2:]))
        log(f"{len(slices)} slices of {series} series or files, at {size} pixels")
    random = first.config.scan_features if settings.any_scan is None else settings.any_scan
    training = settings.training
    data = TrainingData(
        slices=slices,
        scans=settings.scans,
        scan_range=random_scans(True, first.config.arc_direction) if random else None,
    )
    pairs = data.pairs(training.seed)
    refined = None
    if first.refinement is not None and settings.refinement_steps:
        shorter = limit.rest(settings.of_refinement())
        refined = _fitted_refinement(first, pairs, out / "refinement", shorter, progress)
        if refined is None:
            if log is not None:
                log(f"stopped by the time limit before the table in {out} was complete; run again to resume")
            return None
        done = training_record(out / "refinement").steps
        if done < settings.refinement_steps:  # the h-transform needs the finished refinement
            return None
    made = train_htransform(
        pairs, frozen, out, config=first.config, training=limit.rest(training),
        options=HTransformTraining(initial=first, refinement=refined), progress=progress,
    )  # fmt: skip
    made.card = {"initial_sha256": first.content_hash(), **data.card(training, out)}
    made.card |= {"refinement_steps": settings.refinement_steps} if refined is not None else {}
    return made


def _fitted_refinement(
    first: HTransform, pairs: SlicePairs, folder: Path, training: TrainingConfig, progress: bool
) -> Refinement | None:
    """The refinement network of an h-transform after more training; None if the time limit came first."""
    from deft_ct.methods.deft.initial_table import TableConfig, second_name
    from deft_ct.methods.deft.train_refinement import Tabulated, train_refinement

    assert first.refinement is not None
    config, second = first.refinement.config, first.refinement.second
    if second is not None:
        second.precision = training.precision
    table = TableConfig(
        batches=math.ceil(training.steps / PASSES), batch_size=training.batch_size, guidance=config.guidance,
        reference=cast("Reference", first.config.reference), tv_iterations=first.config.tv_iterations,
        scan_features=config.scan_features, arc_direction=config.arc_direction,
        second=second_name(second), seed=training.seed,
    )  # fmt: skip
    return train_refinement(
        Tabulated(pairs=pairs, table=table), folder, config=config, training=training, initial=first.refinement,
        progress=progress,
    )  # fmt: skip
