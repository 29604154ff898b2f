"""Intervals around a mean whose error a network predicts: fitted on validation images, and how far they hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.evaluation.problem import Problem, refuse_test_data
from deft_ct.evaluation.score import values_in_unit
from deft_ct.evaluation.spread import LEVELS, Deviations, Floats, deviation_report
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_network import LAPLACE_DEVIATION, FittedIntervals
from deft_ct.runtime.intervals import fitted_factor
from deft_ct.runtime.machine import versions


@dataclass(frozen=True, kw_only=True)
class PredictedErrors:
    """Reconstructions of a problem, and the scale that a spread network predicts for their errors.

    Attributes:
        centre: ``(n, *shape)``, the reconstructions.
        error: ``(n, *shape)``, their absolute error.
        scale: ``(n, *shape)``, positive, in the same unit.
    """

    centre: Floats
    error: Floats
    scale: Floats


def judge(problem: Problem, reconstructor: DEFT, *, progress: bool = False) -> PredictedErrors:
    """Reconstruct every image of a problem without samples.

    Args:
        problem: images with their data; its seed is also that of the reconstruction.
        reconstructor: with a spread network; its intervals are not used.
        progress: show progress bars.

    Raises:
        ValueError: the reconstructor gives no standard deviation without samples.
    """
    raw = DEFT(
        reconstructor.prior, reconstructor.htransform, replace(reconstructor.config, calibrated=False),
        reconstructor.spread_network,
    )  # fmt: skip
    means, scales = [], []
    for y, measurement, image_ids in problem.batches:
        result = raw.reconstruct(
            y, measurement, num_samples=0, seed=problem.seed, image_ids=image_ids, progress=progress
        )
        mean, std, _ = values_in_unit(result)
        if std is None:
            raise ValueError("this method gives no standard deviation without samples: it needs a spread network")
        means.append(problem.to_numpy(mean))
        scales.append(problem.to_numpy(std) / LAPLACE_DEVIATION)
    centre = np.concatenate(means)
    return PredictedErrors(centre=centre, error=np.abs(problem.truth - centre), scale=np.concatenate(scales))


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


def fit_intervals(
    problems: Sequence[Problem], judged: Sequence[PredictedErrors], reconstructor: DEFT
) -> FittedIntervals:
    """Fit the half widths of a spread network on validation images.

    Args:
        problems: scans of images of one size.
        judged: of :func:`judge`, for each.
        reconstructor: that made them.

    Raises:
        ValueError: a problem is of a test set, or of images of another size; or there is no pixel to fit on.
    """
    for problem in problems:
        refuse_test_data(problem)
    shapes = {problem.truth.shape[-2:] for problem in problems}
    if len(shapes) != 1:
        raise ValueError(f"intervals are fitted on images of one size, got {sorted(shapes)}")
    errors, scales = (
        [getattr(one, name)[problem.mask] for problem, one in zip(problems, judged, strict=True)]
        for name in ("error", "scale")
    )
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


def report_intervals(problem: Problem, judged: PredictedErrors, fitted: FittedIntervals) -> dict[str, Any]:
    """:func:`~deft_ct.evaluation.spread.deviation_report` of a spread network, as one kind of spread.

    Args:
        problem: images with their data; test images are allowed.
        judged: of :func:`judge`.
        fitted: the intervals.

    Returns:
        As :func:`~deft_ct.evaluation.spread_fit.report` with the kind ``"network"``. ``outside`` is the median standard
        deviation outside of the mask.
    """
    std, widths = judged.scale * fitted.deviation, fitted.in_deviations
    found = Deviations(
        error=judged.error, std=std, mask=problem.mask, regions=problem.regions(),
        factor=lambda level: fitted_factor(widths, level),
    )  # fmt: skip
    outside = std[~problem.mask]
    return {
        "unit": problem.unit,
        "psnr_db": float(problem.measure(judged.centre)["psnr"].mean()),
        "network": {**deviation_report(found), "outside": float(np.median(outside)) if outside.size else None},
    }
