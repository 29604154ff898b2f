"""Train the spread network of an h-transform on CT slices, and fit its intervals."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deft_ct.ct.trained_range import outside_training
from deft_ct.diffusion import load_prior
from deft_ct.evaluation.interval_fit import fit_intervals, judge, report_intervals
from deft_ct.evaluation.problem import refuse_test_data
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import SpreadNetwork, load_htransform
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES
from deft_ct.methods.deft.initial_table import TableConfig
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_network import SpreadConfig
from deft_ct.methods.deft.train_spread import train_spread
from deft_ct.problems.ct import CTProblem
from deft_ct.runtime.fields import check_fields
from deft_ct.training import TrainingConfig
from deft_ct.workflows.training_setup import TrainingData, new_network


@dataclass(frozen=True, kw_only=True)
class SpreadRecipe:
    """How a spread network is trained.

    Args:
        training: settings of the training loop.
        prior: path or name of the frozen prior; the shipped one if None.
        htransform: path or name of the h-transform whose mean is judged; the shipped one if None.
        batches: batches of means that are tabulated before the training.
        channels: features of each level of the network.
        patch: side of the space-to-depth stem in pixels.

    Raises:
        ValueError: a value is out of range.
    """

    training: TrainingConfig
    prior: str | None = None
    htransform: str | None = None
    batches: int = 200
    channels: str = "32,64,64"
    patch: int = 4

    def __post_init__(self) -> None:
        check_fields(self)
        new_network(self.channels, self.patch)
        TableConfig(batches=self.batches, batch_size=self.training.batch_size)


def spread_on_slices(
    data: TrainingData, out: Path, settings: SpreadRecipe, *, progress: bool = False
) -> SpreadNetwork | None:
    """Train a spread network on CT slices that no network of the method has seen. The same call resumes.

    Args:
        data: slices and scans.
        out: folder of the table and the checkpoints; the caller saves the result.
        settings: how it is trained.
        progress: show progress bars.

    Returns:
        The network with its model card, without intervals; None if ``max_minutes`` ended the work before the table was
        complete.

    Raises:
        ValueError: the h-transform has no initial reconstruction, or is for one scan and the data have others.
        FileNotFoundError: a network does not exist.
    """
    training = settings.training
    prior, htransform = load_prior(settings.prior), load_htransform(settings.htransform)
    told = htransform.config
    config = SpreadConfig(
        spread_slopes=SPREAD_SLOPES if told.spread_slopes else (), guidance_scale=told.guidance_scale,
        scan_features=told.scan_features, arc_direction=told.arc_direction, channels=told.channels,
        network=new_network(settings.channels, settings.patch),
    )  # fmt: skip
    table = TableConfig(
        batches=settings.batches, batch_size=training.batch_size, reference=told.reference,
        tv_iterations=told.tv_iterations, guidance=told.guidance, scan_features=told.scan_features,
        arc_direction=told.arc_direction, seed=training.seed,
    )  # fmt: skip
    made = train_spread(
        data.pairs(training.seed, prior.value_range or PriorRange()), DEFT(prior, htransform), out, config=config,
        table=table, training=training, progress=progress,
    )  # fmt: skip
    if made is None:
        return None
    made.card |= data.card(training, out)
    return made


def calibrated_network(
    solver: DEFT, problems: Sequence[Sequence[CTProblem]], *, progress: bool = False
) -> tuple[SpreadNetwork, dict[str, dict[str, Any]]]:
    """Fit the intervals of the spread network of a method on validation slices, and report on more.

    Args:
        solver: with a spread network. Intervals of the size of the slices are replaced, those of other sizes stay.
        problems: the scans of each data set. The intervals are fitted on those of the first, all at once.
        progress: show progress bars.

    Returns:
        The network, and :func:`~deft_ct.evaluation.interval_fit.report_intervals` by data set and scan.

    Raises:
        ValueError: the method has no spread network, it was not trained for a scan, or the first data set has slices of
            a test set or of several sizes.
    """
    network = solver.spread_network
    if network is None:
        raise ValueError("there is no spread network beside this h-transform: train one with `deft-ct train spread`")
    for problem in problems[0]:
        refuse_test_data(problem)
        found = outside_training(network.card, problem.batches[0].measurement)
        if found:
            raise ValueError(f"the spread network was {'; '.join(found)}: fit on scans of its training")
    judged = [[judge(problem, solver, progress=progress) for problem in scans] for scans in problems]
    fitted = fit_intervals(problems[0], judged[0], solver)
    changed = copy.copy(network)
    changed.intervals = (*(one for one in network.intervals if one.image_shape != fitted.image_shape), fitted)
    reports: dict[str, dict[str, Any]] = {}
    for scans, results in zip(problems, judged, strict=True):
        for problem, result in zip(scans, results, strict=True):
            title = f"{problem.data}, {problem.scan.name}"
            title += f" ({1 + sum(name.startswith(title) for name in reports)})" if title in reports else ""
            reports[title] = report_intervals(problem, result, fitted)
    return changed, reports
