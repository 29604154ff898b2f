"""Intervals around a mean whose error a network predicts: fitted on validation images, and how far they hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.evaluation.problem import Problem, refuse_test_data
from deft_ct.evaluation.score import values_in_unit
from deft_ct.evaluation.spread import LEVELS, Deviations, deviation_report, half_width
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_network import FittedIntervals
from deft_ct.runtime.machine import versions


def judge(problem: Problem, reconstructor: DEFT, *, progress: bool = False) -> tuple[NDArray[np.floating], Deviations]:
    """Reconstruct every image of a problem without samples.

    Args:
        problem: images with their data; its seed is also that of the reconstruction.
        reconstructor: with a spread network.
        progress: show progress bars.

    Returns:
        The reconstructions, and their errors with the standard deviations and intervals that are reported for them.

    Raises:
        ValueError: the reconstructor gives no standard deviation without samples.
    """
    means, stds = [], []
    factors: dict[float, float] = {}
    for y, measurement, image_ids in problem.batches:
        result = reconstructor.reconstruct(
            y, measurement, num_samples=0, seed=problem.seed, image_ids=image_ids, progress=progress
        )
        mean, std, _ = values_in_unit(result)
        if std is None:
            raise ValueError("this method gives no standard deviation without samples: it needs a spread network")
        means.append(problem.to_numpy(mean))
        stds.append(problem.to_numpy(std))
        factors = {level: half_width(result, level) for level in (*LEVELS, *_NOMINAL)}
    centre = np.concatenate(means)
    judged = Deviations(
        error=np.abs(problem.truth - centre), std=np.concatenate(stds), mask=problem.mask, regions=problem.regions(),
        factor=lambda level: factors[round(level, 2)],
    )  # fmt: skip
    return centre, judged


_NOMINAL = tuple(float(level) for level in np.round(np.arange(0.05, 1.0, 0.05), 2))


def conformal_widths(
    errors: Sequence[NDArray[np.floating]], scales: Sequence[NDArray[np.floating]]
) -> dict[str, float]:
    """Half widths of intervals in units of a predicted scale, for each of :data:`~deft_ct.evaluation.spread.LEVELS`.

    The ``ceil((n + 1) p)``-th smallest of ``n`` ratios ``error / scale`` (split conformal prediction, Lei et al. 2018,
    arXiv 1604.04173, sec. 2.2). An interval covers at least a share ``p`` of the pixels that are exchangeable with
    these. Pixels of other patients are so only approximately. Every part counts equally, whatever its size.

    Args:
        errors: absolute errors, an array of pixels for each part, such as a scan.
        scales: predicted for them, positive.

    Raises:
        ValueError: a part has no pixels.
    """
    if not errors or any(part.size == 0 for part in errors):
        raise ValueError("there is no pixel to fit intervals on: every scan needs images with a body")
    least = min(part.size for part in errors)
    parts = []
    for error, scale in zip(errors, scales, strict=True):
        ratio = np.sort(np.asarray(error, np.float64) / np.maximum(scale, np.finfo(np.float32).tiny))
        where = np.linspace(0, ratio.size - 1, least).round().astype(int)  # evenly spaced order statistics
        parts.append(ratio[where])
    ratios = np.sort(np.concatenate(parts))
    ranks = {level: min(math.ceil((ratios.size + 1) * level), ratios.size) for level in LEVELS}
    return {f"{level:g}": float(ratios[rank - 1]) for level, rank in ranks.items()}


def fit_intervals(problems: Sequence[Problem], reconstructor: DEFT, *, progress: bool = False) -> FittedIntervals:
    """Fit the half widths of a spread network on validation images.

    Args:
        problems: scans of images of one size.
        reconstructor: with the spread network, and ``calibrated=False``.
        progress: show progress bars.

    Raises:
        ValueError: a problem is of a test set, or of images of another size; or there is no pixel to fit on.
    """
    for problem in problems:
        refuse_test_data(problem)
    shapes = {problem.truth.shape[-2:] for problem in problems}
    if len(shapes) != 1:
        raise ValueError(f"intervals are fitted on images of one size, got {sorted(shapes)}")
    errors, scales = [], []
    for problem in problems:
        _, judged = judge(problem, reconstructor, progress=progress)
        errors.append(judged.error[judged.mask])
        scales.append(judged.std[judged.mask] / math.sqrt(2))  # uncalibrated: of Laplace's density
    provenance = {
        "fitted_on": [{**problem.settings(), "scan": problem.describe_measurement()} for problem in problems],
        "network_precision": reconstructor.prior.precision,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }  # fmt: skip
    settings = reconstructor.config_for(problems[0].batches[0].measurement).mean_settings
    return FittedIntervals(
        half_widths=conformal_widths(errors, scales), image_shape=shapes.pop(), settings=settings, provenance=provenance
    )


def report_intervals(problem: Problem, reconstructor: DEFT, *, progress: bool = False) -> dict[str, Any]:
    """:func:`~deft_ct.evaluation.spread.deviation_report` of a spread network, as one kind of spread.

    Args:
        problem: images with their data; test images are allowed.
        reconstructor: with the spread network and its intervals.
        progress: show progress bars.

    Returns:
        As :func:`~deft_ct.evaluation.spread_fit.report` with the kind ``"network"``. ``outside`` is the median standard
        deviation outside of the mask.
    """
    centre, judged = judge(problem, reconstructor, progress=progress)
    outside = judged.std[~judged.mask]
    return {
        "unit": problem.unit,
        "psnr_db": float(problem.measure(centre)["psnr"].mean()),
        "network": {**deviation_report(judged), "outside": float(np.median(outside)) if outside.size else None},
    }
