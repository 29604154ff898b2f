"""Train the spread network of an h-transform on CT slices, and fit its intervals."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deft_ct.ct.trained_range import outside_training
from deft_ct.datasets.dicom_folder import CTFolder
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import load_prior
from deft_ct.evaluation.interval_fit import fit_intervals, judge, report_intervals, shape_to_fit
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import SpreadNetwork, load_htransform, load_spread_network
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES
from deft_ct.methods.deft.initial_table import TableConfig
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_network import SpreadConfig
from deft_ct.methods.deft.train_spread import tabulate_means, train_spread
from deft_ct.problems.ct import CTProblem
from deft_ct.runtime.fields import check_fields
from deft_ct.training import TimeLimit, TrainingConfig
from deft_ct.workflows.training_setup import TrainingData, new_network

FOLDS = "folds"
"""Folder of the networks of the folds, in the output folder of a training."""
LEFT_OUT, LEFT_OUT_CONTENT = "left_out_series", "left_out_sha256"
"""Keys of a card: the series that a fold was not trained on, and their content."""


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
        folds: further networks, each trained without a part of the patients; 0 for none. They judge the patients that
            they have not seen, and intervals are fitted on these judgements, see :func:`calibrated_network`.

    Raises:
        ValueError: a value is out of range.
    """

    training: TrainingConfig
    prior: str | None = None
    htransform: str | None = None
    batches: int = 200
    channels: str = "32,64,64"
    patch: int = 4
    folds: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"folds must be 0 or at least 2, got {self.folds}")
        new_network(self.channels, self.patch)
        TableConfig(batches=self.batches, batch_size=self.training.batch_size)


def spread_on_slices(
    data: TrainingData, out: Path, settings: SpreadRecipe, *, progress: bool = False
) -> list[SpreadNetwork] | None:
    """Train a spread network on CT slices that no network of the method has seen. The same call resumes.

    Args:
        data: slices and scans.
        out: folder of the table and the checkpoints; the caller saves the result.
        settings: how it is trained.
        progress: show progress bars.

    Returns:
        The network with its model card, without intervals, and then those of the folds, as far as ``max_minutes`` let
        them begin. None if it ended the work before the table was complete.

    Raises:
        ValueError: the h-transform has no initial reconstruction, or is for one scan and the data have others; or
            there are fewer patients than folds.
        FileNotFoundError: a network does not exist.
    """
    training = settings.training
    parts: list[tuple[str, ...]] = [()]
    parts += series_of_folds(data.slices, settings.folds) if settings.folds else []
    limit = TimeLimit(training)
    prior, htransform = load_prior(settings.prior), load_htransform(settings.htransform)
    told = htransform.config
    config = SpreadConfig(
        spread_slopes=SPREAD_SLOPES if told.spread_slopes else (), guidance_scale=told.guidance_scale,
        scan_features=told.scan_features, arc_direction=told.arc_direction, channels=told.channels,
        network=new_network(settings.channels, settings.patch),
    )  # fmt: skip
    wanted = TableConfig(
        batches=settings.batches, batch_size=training.batch_size, reference=told.reference,
        tv_iterations=told.tv_iterations, guidance=told.guidance, scan_features=told.scan_features,
        arc_direction=told.arc_direction, seed=training.seed,
    )  # fmt: skip
    table = tabulate_means(
        data.pairs(training.seed, prior.value_range or PriorRange()), DEFT(prior, htransform), wanted, out / "means",
        overwrite=training.overwrite, should_stop=limit.reached, progress=progress,
    )  # fmt: skip
    networks: list[SpreadNetwork] = []
    if table is None:
        return None
    for number, series in enumerate(parts):
        if number and limit.reached():
            break
        folder = out / f"fold-{number}" if number else out
        left_out = [n for n, item in enumerate(data.slices) if item.group in series] if series else []
        made = train_spread(
            table, folder, config=config, training=limit.rest(training), left_out=left_out, progress=progress
        )
        made.card |= data.card(training, folder)
        if isinstance(data.slices, CTPack) and series:
            left = left_out_slices(data.slices.path, series)
            made.card |= {LEFT_OUT: list(series), LEFT_OUT_CONTENT: left.content_hash()}
        networks.append(made)
    return networks


def series_of_folds(slices: CTPack | CTFolder, folds: int) -> list[tuple[str, ...]]:
    """The series that each fold leaves out: all of every k-th patient.

    Args:
        slices: of a data pack, which names its patients.
        folds: how many.

    Raises:
        ValueError: the slices are no pack, or of fewer patients than folds.
    """
    if not isinstance(slices, CTPack):
        raise ValueError("folds need to know the patients: give a data pack (an HDF5 file), not a folder")
    patients = {group.name: name for group, name in zip(slices.groups, slices.patients_of_groups, strict=True)}
    names = sorted(set(patients.values()))
    if len(names) < folds:
        raise ValueError(f"{folds} folds need at least as many patients, {slices.name} has {len(names)}")
    return [
        tuple(series for series, patient in patients.items() if patient in names[number::folds])
        for number in range(folds)
    ]


def left_out_slices(path: Path, series: Collection[str], every: int = 1) -> CTPack:
    """The slices that a fold has left out: of each patient one of ``every`` so many, and at least one.

    Raises:
        ValueError: the pack does not hold the series.
    """
    of_patients = Counter(CTPack(path, groups=tuple(series)).patients)
    return CTPack(path, groups=tuple(series), limit=sum(math.ceil(count / every) for count in of_patients.values()))


def judged_folds(
    folder: Path, data: Path, solver: DEFT, scans: Callable[[CTPack], Sequence[CTProblem]], *, every: int = 1
) -> list[tuple[DEFT, Sequence[CTProblem]]]:
    """The networks of the folds, each with scans of the slices that it has not seen.

    Args:
        folder: of ``deft-ct train spread --folds``.
        data: the pack that they were trained on.
        solver: whose means they judge.
        scans: makes the scans of some slices.
        every: of each patient keep one of so many slices, and at least one.

    Raises:
        FileNotFoundError: there are no folds, or no such pack.
        ValueError: a network is of no fold, or of another pack or h-transform.
    """
    folders = sorted((folder / FOLDS).iterdir()) if (folder / FOLDS).is_dir() else []
    advice = "give the output of `deft-ct train spread --folds 3`"
    if not folders:
        raise FileNotFoundError(f"{folder} holds no folder {FOLDS}: {advice}")
    found = []
    for one in folders:
        network = load_spread_network(one)
        series = () if network is None else network.card.get(LEFT_OUT, ())
        if network is None or not series:
            raise ValueError(f"{one} holds no network of a fold: {advice}")
        if left_out_slices(data, series).content_hash() != network.card.get(LEFT_OUT_CONTENT):
            raise ValueError(f"{one} was not trained on {data.name}: give the pack of its training")
        judging = DEFT(solver.prior, solver.htransform, solver.config, network)
        found.append((judging, scans(left_out_slices(data, series, every))))
    return found


def calibrated_network(
    solver: DEFT,
    problems: Sequence[Sequence[CTProblem]],
    folds: Sequence[tuple[DEFT, Sequence[CTProblem]]] = (),
    *,
    progress: bool = False,
) -> tuple[SpreadNetwork, dict[str, dict[str, Any]]]:
    """Fit the intervals of the spread network of a method on validation slices, and report on more.

    Args:
        solver: with a spread network. Intervals of the size of the slices are replaced, those of other sizes stay.
        problems: the scans of each data set. The intervals are fitted on those of the first, all at once.
        folds: of :func:`judged_folds`. The intervals are fitted on these slices, too.
        progress: show progress bars.

    Returns:
        The network, and :func:`~deft_ct.evaluation.interval_fit.report_intervals` by data set and scan; first those
        that the intervals were fitted on.

    Raises:
        ValueError: the method has no spread network, it was not trained for a scan, or the slices of the fit are of a
            test set or of several sizes.
    """
    network = solver.spread_network
    if network is None:
        raise ValueError("there is no spread network beside this h-transform: train one with `deft-ct train spread`")
    shape_to_fit([*problems[0], *(problem for _, scans in folds for problem in scans)])  # before the work
    for problem in problems[0]:
        found = outside_training(network.card, problem.batches[0].measurement)
        if found:
            raise ValueError(f"the spread network was {'; '.join(found)}: fit on scans of its training")
    seen = [(problem, judge(problem, solver, progress=progress)) for problem in problems[0]]
    unseen = [(problem, judge(problem, own, progress=progress)) for own, scans in folds for problem in scans]
    fitted = fit_intervals([*seen, *unseen], solver)
    others = [(problem, judge(problem, solver, progress=progress)) for scans in problems[1:] for problem in scans]
    changed = copy.copy(network)
    changed.intervals = (*(one for one in network.intervals if one.image_shape != fitted.image_shape), fitted)
    reports: dict[str, dict[str, Any]] = {}
    for problem, result in [*seen, *others]:
        title = f"{problem.data}, {problem.scan.name}"
        title += f" ({1 + sum(name.startswith(title) for name in reports)})" if title in reports else ""
        reports[title] = report_intervals(problem, result, fitted)
    return changed, reports
