"""Posterior samples of known images: how far their standard deviation can be believed, and its calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from deft_ct.evaluation.problem import Problem, refuse_test_data
from deft_ct.evaluation.score import values_in_unit
from deft_ct.evaluation.spread import Draws, coverage, spread_report
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_calibration import SpreadCalibration
from deft_ct.runtime.intervals import LEVELS
from deft_ct.runtime.machine import versions


def draw(problem: Problem, reconstructor: DEFT, *, samples: int = 4, progress: bool = False) -> Draws:
    """Draw posterior samples of every image of a problem.

    Args:
        problem: images with their data; its seed is also that of the sampling.
        reconstructor: the method.
        samples: of each image.
        progress: show progress bars.

    Raises:
        ValueError: fewer than two samples.
    """
    if samples < 2:
        raise ValueError(f"a standard deviation needs at least two samples, got {samples}")
    centre, drawn = [], []
    for y, measurement, image_ids in problem.batches:
        result = reconstructor.reconstruct(
            y, measurement, num_samples=samples, seed=problem.seed, image_ids=image_ids, progress=progress
        )
        mean, _, found = values_in_unit(result)
        assert found is not None
        centre.append(problem.to_numpy(mean))
        flat = problem.to_numpy(found.flatten(0, 1))
        drawn.append(flat.reshape(len(y), samples, *flat.shape[1:]))
    return Draws(
        truth=problem.truth, centre=np.concatenate(centre), samples=np.concatenate(drawn), mask=problem.mask,
        regions=problem.regions(), around_samples=reconstructor.config.estimate == "samples",
    )  # fmt: skip


def calibrate_spread(problem: Problem, draws: Draws, reconstructor: DEFT, *, floor: bool = True) -> SpreadCalibration:
    """Fit factor and floor on samples of validation images.

    Args:
        problem: that the samples are of.
        draws: from :func:`draw`.
        reconstructor: the method.
        floor: whether to fit a floor, too.

    Raises:
        ValueError: the problem is of a test set, or no factor reaches the level.
    """
    refuse_test_data(problem)
    factor, lowest = fit_spread(draws, floor=floor)
    fitted = SpreadCalibration(
        factor=factor, floor_hu=lowest, samples=draws.count, around_samples=draws.around_samples,
        scan=problem.describe_measurement(), image_shape=draws.truth.shape[-2:], settings=reconstructor.sampling,
        htransform_sha256=reconstructor.htransform.content_hash(), prior_sha256=reconstructor.prior.content_hash(),
    )  # fmt: skip
    provenance = {
        **problem.settings(), "network_precision": reconstructor.prior.precision,
        "coverage_90_raw": coverage(draws), "coverage_90_calibrated": coverage(draws, fitted),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }  # fmt: skip
    return replace(fitted, provenance=provenance)


def report(problem: Problem, draws: Draws, calibration: SpreadCalibration | None = None) -> dict[str, Any]:
    """Raw and calibrated :func:`~deft_ct.evaluation.spread.spread_report`, with the unit and the mean PSNR.

    Args:
        problem: that the samples are of.
        draws: from :func:`draw`.
        calibration: reported in addition to the raw standard deviation.
    """
    found: dict[str, Any] = {
        "unit": problem.unit,
        "psnr_db": float(problem.measure(draws.centre)["psnr"].mean()),
        "raw": spread_report(draws),
    }
    if calibration is not None:
        found["calibrated"] = spread_report(draws, calibration)
    return found


def report_markdown(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Coverage by region and level, raw and calibrated, and the correlation of standard deviation and error.

    Args:
        reports: name of the data set -> :func:`report`.
    """
    head = ["data", "spread", "region", *(f"{100 * level:g} %" for level in LEVELS), "Pearson", "Spearman"]
    rows, notes = [], []
    for name, whole in reports.items():
        unit = f" {whole['unit']}" if whole["unit"] else ""
        for kind in ("raw", "calibrated", "network"):
            if kind not in whole:
                continue
            found = whole[kind]
            for region, covered in found["coverage"].items():
                related = found["correlation"][region]
                values = [f"{100 * covered[f'{level:g}']:.1f}" for level in LEVELS]
                rows.append([name, kind, region, *values, *(_two(related[k]) for k in ("pearson", "spearman"))])
            ends = [found["coverage_90"][end] for end in ("low", "high")]
            span = " to ".join("-" if end is None else f"{100 * end:.1f}" for end in ends)
            blocks = found["correlation"]["blocks"]
            notes.append(
                f"{name}, {kind}: {found['images']} images, {_origin(found, unit)}, RMS spread "
                f"{found['rms_spread']:.4g}{unit}, RMSE {found['rmse']:.4g}{unit}; 90 % coverage, mean over images, "
                f"{100 * found['coverage_90']['mean']:.1f} % (95 % interval {span}); over 16 x 16 blocks spread and "
                f"error correlate by {_two(blocks['pearson'])} (Pearson)."
            )
    table = markdown_table(head, rows, align="lll" + "r" * (len(head) - 3))
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def _origin(found: Mapping[str, Any], unit: str) -> str:
    if "samples" in found:
        return f"{found['samples']} samples"
    outside = "-" if found["outside"] is None else f"{found['outside']:.3g}{unit}"
    return f"no samples, median spread outside of the mask {outside}"


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def fit_spread(draws: Draws, *, level: float = 0.9, floor: bool = True) -> tuple[float, float]:
    """Factor and floor with which the central interval of ``level`` covers that share of the pixels in the mask.

    For a given floor the factor is a quantile, in closed form. The floor is chosen by the interval score of its
    intervals: width plus ``2 / (1 - level)`` times the miss (Gneiting and Raftery 2007, eq. 43). The lowest score wins.
    This score is proper, so it favours the narrowest intervals that are honest for each pixel, as far as the standard
    deviation differs between pixels.

    Args:
        draws: samples of known images.
        level: nominal coverage that is met.
        floor: whether to fit one; 0 otherwise.

    Returns:
        ``(factor, floor)``, the floor in the unit of the images.

    Raises:
        ValueError: the mask is empty, or the standard deviation is zero in so many that no factor reaches the level.
    """
    if not draws.mask.any():
        raise ValueError("the mask is empty: there is no pixel to fit the standard deviation on")
    width = draws.factor(level)
    needed = (draws.error[draws.mask].astype(np.float64) / width) ** 2
    variance = draws.std[draws.mask].astype(np.float64) ** 2

    def factor(lowest: float) -> float:
        rest = np.maximum(needed - lowest**2, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(rest > 0, rest / variance, 0.0)
        return float(np.quantile(ratio, level, method="higher")) ** 0.5

    def score(lowest: float) -> float:
        scale = factor(lowest)
        if not np.isfinite(scale):
            return np.inf
        half = width * np.sqrt(scale**2 * variance + lowest**2)
        miss = np.maximum(width * np.sqrt(needed) - half, 0.0)
        return float((2 * half + 2 / (1 - level) * miss).mean())

    best = 0.0
    if floor:
        highest = float(np.quantile(needed, level, method="higher")) ** 0.5  # covers with samples that all agree
        grid = np.linspace(0.0, highest, 17)
        k = int(np.argmin([score(value) for value in grid]))
        around = (grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)])
        found = minimize_scalar(score, bounds=around, method="bounded", options={"maxiter": 25})
        best = float(found.x) if found.fun < score(0.0) else 0.0
    scale = factor(best)
    if not np.isfinite(scale):
        raise ValueError(
            "the samples agree exactly in too many pixels for a factor to widen them: draw more samples, or fit a floor"
        )
    return scale, best
