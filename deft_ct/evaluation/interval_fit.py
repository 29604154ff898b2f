"""Intervals around a mean whose error a network predicts: fitted on validation images, and how far they hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.evaluation.problem import Problem, refuse_test_data
from deft_ct.evaluation.score import values_in_unit
from deft_ct.evaluation.spread import Deviations, Floats, deviation_report
from deft_ct.methods.deft.conditioning import scan_features
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_network import LAPLACE_DEVIATION, MAIN_LEVEL, FittedIntervals
from deft_ct.runtime.intervals import LEVELS, fitted_factor
from deft_ct.runtime.machine import versions

PATIENT_SHARE = 0.9
"""Of the patients whose pixels an interval for patients is to cover."""


@dataclass(frozen=True, kw_only=True)
class PredictedErrors:
    """Reconstructions of a problem, and the scale that a spread network predicts for their errors.

    Attributes:
        centre: ``(n, *shape)``, the reconstructions.
        error: ``(n, *shape)``, their absolute error.
        scale: ``(n, *shape)``, positive, in the same unit.
        features: ``(n, F)`` of their scans; None for networks that are not told the scan.
    """

    centre: Floats
    error: Floats
    scale: Floats
    features: Tensor | None = None

    def corrected(self, fitted: FittedIntervals) -> Floats:
        """The scale after the correction by the scan."""
        found: Floats = fitted.corrected(torch.from_numpy(self.scale), self.features).numpy()
        return found


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
    means, scales, features = [], [], []
    for y, measurement, image_ids in problem.batches:
        result = raw.reconstruct(
            y, measurement, num_samples=0, seed=problem.seed, image_ids=image_ids, progress=progress
        )
        mean, std, _ = values_in_unit(result)
        if std is None:
            raise ValueError("this method gives no standard deviation without samples: it needs a spread network")
        means.append(problem.to_numpy(mean))
        scales.append(problem.to_numpy(std) / LAPLACE_DEVIATION)
        if reconstructor.htransform.config.scan_features:
            features.append(scan_features(measurement.likelihood(y, reconstructor.prior.value_range)).cpu())
    centre = np.concatenate(means)
    return PredictedErrors(
        centre=centre, error=np.abs(problem.truth - centre), scale=np.concatenate(scales),
        features=torch.cat(features) if features else None,
    )  # fmt: skip


def pooled_ratios(parts: Sequence[Floats]) -> Floats:
    """Ratios of all parts, sorted, of which every part has as many: evenly spaced order statistics.

    Raises:
        ValueError: a part has no pixels.
    """
    if not parts or any(part.size == 0 for part in parts):
        raise ValueError("there is no pixel to fit intervals on: every scan needs images with a body")
    least = min(part.size for part in parts)
    chosen = [np.sort(part)[np.linspace(0, part.size - 1, least).round().astype(int)] for part in parts]
    return np.sort(np.concatenate(chosen))


def conformal_widths(parts: Sequence[Floats]) -> dict[str, float]:
    """Half widths of intervals in units of a predicted scale, for each of :data:`~deft_ct.runtime.intervals.LEVELS`.

    The ``ceil((n + 1) p)``-th smallest of ``n`` ratios ``error / scale`` (split conformal prediction, Lei et al. 2018,
    arXiv 1604.04173, sec. 2.2). An interval covers at least a share ``p`` of the pixels that are exchangeable with
    these. Pixels of other patients are so only approximately. Every part counts equally, whatever its size.

    Args:
        parts: ratios of the pixels of each part, such as a patient in a scan.

    Raises:
        ValueError: a part has no pixels.
    """
    ratios = pooled_ratios(parts)
    ranks = {level: min(math.ceil((ratios.size + 1) * level), ratios.size) for level in LEVELS}
    return {f"{level:g}": float(ratios[rank - 1]) for level, rank in ranks.items()}


def widths_for_patients(patients: Sequence[Sequence[Floats]]) -> dict[str, float]:
    """Half widths whose intervals cover their share of the pixels of at least 90 % of the patients.

    For each level, every patient has a half width that covers this share of his or her own pixels. The
    ``ceil(0.9 (P + 1))``-th smallest of those of ``P`` patients holds for another patient with a probability of at
    least 90 %, if the patients are exchangeable. So this needs nine patients.

    Args:
        patients: of each patient the ratios ``error / scale`` of every scan.

    Returns:
        Empty if there are too few patients.
    """
    rank = math.ceil(PATIENT_SHARE * (len(patients) + 1))
    if rank > len(patients):
        return {}
    each = [conformal_widths(parts) for parts in patients]
    return {level: sorted(widths[level] for widths in each)[rank - 1] for level in each[0]}


def fitted_slopes(features: Floats, widths: Floats) -> tuple[float, ...]:
    """How the logarithm of a half width follows the features of the scan, by least squares.

    Directions that the scans do not tell apart keep a slope of zero.

    Args:
        features: ``(scans, F)``.
        widths: of each scan, ``(scans,)``.
    """
    logs = np.log(widths)
    slopes = np.linalg.lstsq(features - features.mean(0), logs - logs.mean(), rcond=1e-4)[0]
    return tuple(float(slope) for slope in slopes)


def shape_to_fit(problems: Sequence[Problem]) -> tuple[int, ...]:
    """``(H, W)`` of images that intervals are to be fitted on.

    Raises:
        ValueError: a problem is of a test set, or they are of several sizes.
    """
    for problem in problems:
        refuse_test_data(problem)
    shapes = {problem.truth.shape[-2:] for problem in problems}
    if len(shapes) != 1:
        raise ValueError(f"intervals are fitted on images of one size, got {sorted(shapes)}")
    return shapes.pop()


def fit_intervals(judged: Sequence[tuple[Problem, PredictedErrors]], reconstructor: DEFT) -> FittedIntervals:
    """Fit the half widths of a spread network, and its correction by the scan.

    For the half widths every patient of every scan counts equally, for the root mean square every problem.

    Args:
        judged: scans of images of one size that the networks have not seen, each with the result of :func:`judge`.
            Problems of one name are of one scan.
        reconstructor: gives the settings of the mean.

    Raises:
        ValueError: a problem is of a test set, or of images of another size; or there is no pixel to fit on.
    """
    shape = shape_to_fit([problem for problem, _ in judged])
    slopes, factors = _scan_correction(judged)
    first = judged[0][0]
    fitted = FittedIntervals(
        half_widths={f"{MAIN_LEVEL:g}": 1.0}, image_shape=shape, scan_slopes=slopes, scan_factors=factors,
        settings=reconstructor.config_for(first.batches[0].measurement).mean_settings,
        provenance={
            "fitted_on": [{**one.settings(), "scan": one.describe_measurement()} for one, _ in judged],
            "patients": len({patient for one, _ in judged for patient in one.patients}),
            "network_precision": reconstructor.prior.precision,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        },
    )  # fmt: skip
    ratios: dict[str, list[Floats]] = {}
    squares = []
    for problem, one in judged:
        scale = one.corrected(fitted)
        squares.append(float(np.square(one.error[problem.mask]).sum() / np.square(scale[problem.mask]).sum()))
        for patient, part in _by_patient(problem, one.error / scale).items():
            ratios.setdefault(patient, []).append(part)
    return replace(
        fitted,
        half_widths=conformal_widths([part for parts in ratios.values() for part in parts]),
        root_mean_square=math.sqrt(float(np.mean(squares))),
        patient_half_widths=widths_for_patients([*ratios.values()]),
    )


def _scan_correction(judged: Sequence[tuple[Problem, PredictedErrors]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Slopes of the correction, and the range of its factors, for the scans of a fit."""
    scans: dict[str, list[Floats]] = {}
    features: dict[str, Floats] = {}
    for problem, one in judged:
        if one.features is None:
            return (), (1.0, 1.0)
        scans.setdefault(problem.name, []).extend(_by_patient(problem, one.error / one.scale).values())
        features[problem.name] = one.features.double().mean(0).numpy()
    if len(scans) == 1:
        return (), (1.0, 1.0)
    widths = [np.log(list(conformal_widths(parts).values())).mean() for parts in scans.values()]
    table = np.stack([features[name] for name in scans])
    slopes = fitted_slopes(table, np.exp(widths))
    factors = np.exp(table @ np.asarray(slopes))
    return slopes, (float(factors.min()), float(factors.max()))


def _by_patient(problem: Problem, ratios: Floats) -> dict[str, Floats]:
    """The ratios inside of the mask, by patient."""
    patients = np.array(problem.patients)
    return {
        name: ratios[patients == name][problem.mask[patients == name]].astype(np.float64)
        for name in dict.fromkeys(problem.patients)
    }


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
    std, widths = judged.corrected(fitted) * fitted.deviation, fitted.in_deviations
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
