"""How far a posterior standard deviation can be believed: coverage, correlation with the error, sparsification.

"Spread" is short for the posterior standard deviation, pixel by pixel.

**Intervals of a few samples.** Let an image and ``N`` samples be independent draws from one posterior of standard
deviation ``s``, and ``S`` the sample standard deviation (``N - 1`` in the denominator). The error of the mean of the
samples has variance ``s^2 (1 + 1/N)``, and over ``S sqrt(1 + 1/N)`` it follows Student's t with ``N - 1`` degrees of
freedom when the posterior is Gaussian. The central interval of level ``p`` is thus ``mean +- q S`` with
``q = t_{N-1}((1 + p) / 2) sqrt(1 + 1/N)``, and without the root around the exact posterior mean. For N = 4 and 90 %,
``q`` is 2.63 and not 1.645: intervals of 1.645 S cover 76 % though nothing is wrong with the samples. Intervals of a
raw standard deviation use ``q`` here, so that exact samples cover as they should for any N. A calibrated one contains
this factor already: it uses the intervals of the normal distribution, ``+- 1.645`` for 90 %.

Without assuming a shape: between the j-th lowest and the j-th highest of N samples the truth lies with probability
``(N + 1 - 2 j) / (N + 1)``, which are the only levels that N samples can give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from deft_ct.evaluation.statistics import mean_interval
from deft_ct.reconstruction import Reconstruction
from deft_ct.runtime.intervals import LEVELS, fitted_factor, interval_factor, normal_factor
from deft_ct.runtime.plain_values import plain

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_BLOCK = 16
_BINS = 12


class Rescaling(Protocol):
    """Interface of a calibration: maps the sample standard deviation to a calibrated one (normal intervals)."""

    def rescaled(self, std: Floats, count: int) -> Floats:
        """The calibrated standard deviation, in the unit of ``std``, which is that of ``count`` samples."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Posterior samples of images whose truth is known, all in one unit.

    Attributes:
        truth: ``(n, *shape)``.
        centre: ``(n, *shape)``, the reconstruction.
        samples: ``(n, N, *shape)``, at least two for each image.
        mask: ``(n, *shape)`` boolean, the pixels that are judged; for CT the body.
        regions: parts that are reported on their own, each as ``mask``; the mask as ``"all"`` when empty.
        around_samples: whether the centre is the mean of the samples, and not a mean that was estimated without them.

    Raises:
        ValueError: shapes do not fit, or there are fewer than two samples.
    """

    truth: Floats
    centre: Floats
    samples: Floats
    mask: Mask
    regions: Mapping[str, Mask] = field(default_factory=dict)
    around_samples: bool = True

    def __post_init__(self) -> None:
        shape = self.truth.shape
        if self.centre.shape != shape or self.mask.shape != shape or len(shape) < 2:
            raise ValueError(
                f"truth, centre and mask must be (n, *shape), got {shape}, {self.centre.shape}, {self.mask.shape}"
            )
        if self.samples.ndim != len(shape) + 1 or (len(self.samples), *self.samples.shape[2:]) != shape:
            raise ValueError(f"samples must be (n, N, *shape) for images {shape}, got {self.samples.shape}")
        if any(region.shape != shape for region in self.regions.values()):
            raise ValueError(f"every region must have the shape of truth, {shape}")
        if self.count < 2:
            raise ValueError("a standard deviation needs at least two samples of each image, got 1")

    @property
    def count(self) -> int:
        """Samples of each image."""
        return self.samples.shape[1]

    @property
    def std(self) -> Floats:
        """``(n, *shape)``, standard deviation of the samples."""
        found: Floats = self.samples.std(1, ddof=1)
        return found

    @property
    def error(self) -> Floats:
        """``(n, *shape)``, absolute error of the centre."""
        found: Floats = np.abs(self.truth - self.centre)
        return found

    def factor(self, level: float) -> float:
        """Half width of the interval of a level, in standard deviations."""
        return interval_factor(level, self.count, around_samples=self.around_samples)


def coverage(draws: Draws, calibration: Rescaling | None = None, *, level: float = 0.9) -> float:
    """Share of the pixels in the mask whose truth lies in the central interval of a level.

    Args:
        draws: samples of known images.
        calibration: applied to the standard deviation; the raw one when None.
        level: nominal coverage.
    """
    ratio, factor = _error_over_std(draws, calibration)
    return float((ratio[draws.mask] <= factor(level)).mean())


def half_width(result: Reconstruction, level: float) -> float:
    """Half of the central interval of a level around the mean of a result, in its standard deviations.

    One of a spread network has fitted intervals. Of others, a calibrated one has the intervals of the normal
    distribution, a raw one those of a few samples.

    Args:
        result: with a standard deviation.
        level: nominal coverage, between 0 and 1.
    """
    spread = result.provenance["spread"] or {}
    if spread.get("half_widths"):
        return fitted_factor(spread["half_widths"], level)
    calibrated = spread.get("calibrated", False) or spread.get("by") == "network"
    if calibrated or result.samples is None or result.samples.shape[1] < 2:
        return normal_factor(level)
    around = torch.allclose(result.mean, result.samples.mean(1), rtol=1e-5, atol=1e-8)
    return interval_factor(level, result.samples.shape[1], around_samples=around)


def interval_coverage(truth: Floats, centre: Floats, half_width: Floats, mask: Mask) -> NDArray[np.float64]:
    """Share of the pixels of every image whose truth lies within ``centre +- half_width``.

    Args:
        truth: ``(n, *shape)``.
        centre: ``(n, *shape)``.
        half_width: ``(n, *shape)``.
        mask: ``(n, *shape)``, the pixels that count.

    Returns:
        ``(n,)``; NaN where the mask of an image is empty.
    """
    covered = np.abs(truth - centre) <= half_width
    return np.array([c[m].mean() if m.any() else np.nan for c, m in zip(covered, mask, strict=True)], dtype=np.float64)


def spread_report(draws: Draws, calibration: Rescaling | None = None) -> dict[str, Any]:
    """Everything about a posterior standard deviation, as plain values.

    Args:
        draws: samples of known images.
        calibration: applied to the standard deviation; the raw one when None.

    Returns:
        What :func:`deviation_report` says, and

        - ``samples`` of each image, and ``around_samples``.
        - ``rank_coverage`` and ``rank_histogram``: of the samples themselves.
    """
    judged = Deviations(
        error=draws.error, std=_std(draws, calibration), mask=draws.mask, regions=draws.regions,
        factor=draws.factor if calibration is None else normal_factor,
    )  # fmt: skip
    return {
        "samples": draws.count, "around_samples": draws.around_samples, **deviation_report(judged),
        "rank_coverage": rank_coverage(draws), "rank_histogram": rank_histogram(draws),
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Deviations:
    """Standard deviations of images whose error is known, all in one unit.

    Attributes:
        error: ``(n, *shape)``, absolute error of the reconstruction.
        std: ``(n, *shape)``.
        mask: ``(n, *shape)`` boolean, the pixels that are judged.
        regions: parts that are reported on their own, each as ``mask``; the mask as ``"all"`` when empty.
        factor: half width of the interval of a level, in standard deviations.
    """

    error: Floats
    std: Floats
    mask: Mask
    regions: Mapping[str, Mask] = field(default_factory=dict)
    factor: Callable[[float], float] = normal_factor


def deviation_report(judged: Deviations) -> dict[str, Any]:
    """What can be said of a standard deviation without its samples, as plain values.

    Args:
        judged: standard deviations and errors.

    Returns:
        A dictionary; standard deviations and errors are in the unit of the images.

        - ``coverage``: of the intervals of :data:`LEVELS`, by region.
        - ``coverage_normal``: of the intervals of a normal distribution, in the mask.
        - ``coverage_90``: with its bootstrap interval over images.
        - ``reliability``: nominal against observed coverage.
        - ``correlation``: of standard deviation and absolute error, by region and over blocks of 16 x 16 pixels.
        - ``spread_and_error``: RMS error in bins of the standard deviation.
        - ``sparsification``: RMSE of the remaining pixels as those with the largest standard deviation are removed,
          and the same in the best possible order.
    """
    std, error, mask, factor = judged.std, judged.error, judged.mask, judged.factor
    ratio = _ratio(error, std)
    regions = {name: part for name, part in (judged.regions or {"all": mask}).items() if part.any()}
    nominal = np.round(np.arange(0.05, 1.0, 0.05), 2)
    inside = ratio[mask]
    covered = ratio <= factor(0.9)
    per_image = [float(c[m].mean()) for c, m in zip(covered, mask, strict=True) if m.any()]
    overall = mean_interval(per_image)
    return {
        "images": len(error),
        "pixels": int(mask.sum()),
        "rms_spread": _rms(std[mask]),
        "rmse": _rms(error[mask]),
        "coverage": {
            name: {f"{level:g}": float((ratio[part] <= factor(level)).mean()) for level in LEVELS}
            for name, part in regions.items()
        },
        "coverage_normal": {f"{level:g}": float((inside <= normal_factor(level)).mean()) for level in LEVELS},
        "coverage_90": {
            "mean": overall.mean, "low": plain(overall.low), "high": plain(overall.high), "per_image": per_image,
        },
        "reliability": {
            "nominal": nominal.tolist(),
            "observed": [float((inside <= factor(float(level))).mean()) for level in nominal],
        },
        "correlation": {
            **{name: _correlation(std[part], error[part]) for name, part in regions.items()},
            "blocks": _correlation(*_blocks(std, error, mask)),
        },
        "spread_and_error": spread_and_error(std[mask], error[mask]),
        "sparsification": sparsification(std[mask], error[mask]),
    }  # fmt: skip


def _std(draws: Draws, calibration: Rescaling | None) -> Floats:
    return draws.std if calibration is None else calibration.rescaled(draws.std, draws.count)


def _error_over_std(draws: Draws, calibration: Rescaling | None) -> tuple[Floats, Callable[[float], float]]:
    """Absolute errors in standard deviations, and the half width of the interval of a level."""
    return _ratio(draws.error, _std(draws, calibration)), draws.factor if calibration is None else normal_factor


def _ratio(error: Floats, std: Floats) -> Floats:
    found: Floats = error / np.maximum(std, np.finfo(np.float32).tiny)
    return found


def rank_histogram(draws: Draws) -> list[float]:
    """Share of pixels whose truth has rank 0 .. N among the samples; ``1 / (N + 1)`` each if the samples are exact."""
    below = (draws.samples < draws.truth[:, None]).sum(1)
    equal = (draws.samples == draws.truth[:, None]).sum(1)
    counts = np.zeros(draws.count + 1)
    for low, ties in ((below[draws.mask], equal[draws.mask]),):
        for extra in range(draws.count + 1):  # ties, of clipped values above all, are shared out evenly
            chosen = ties >= extra
            np.add.at(counts, low[chosen] + extra, 1 / (ties[chosen] + 1))
    found: list[float] = (counts / counts.sum()).tolist()
    return found


def rank_coverage(draws: Draws) -> list[dict[str, float]]:
    """Coverage in the mask between the j-th lowest and j-th highest sample, and its nominal level."""
    ordered = np.sort(draws.samples, axis=1)
    out = []
    for j in range(draws.count // 2):
        inside = (ordered[:, j] <= draws.truth) & (draws.truth <= ordered[:, draws.count - 1 - j])
        nominal = (draws.count - 1 - 2 * j) / (draws.count + 1)
        out.append({"nominal": nominal, "observed": float(inside[draws.mask].mean())})
    return out


def spread_and_error(std: Floats, error: Floats, bins: int = _BINS) -> dict[str, list[float]]:
    """RMS standard deviation and RMS error of equally many pixels each, in order of the former; equal if calibrated."""
    parts = np.array_split(np.argsort(std, kind="stable"), bins)
    return {
        "spread": [_rms(std[part]) for part in parts if part.size],
        "rmse": [_rms(error[part]) for part in parts if part.size],
    }


def sparsification(std: Floats, error: Floats) -> dict[str, list[float]]:
    """RMSE of what remains after a share of the pixels is removed: by standard deviation, and by error, largest first.

    A standard deviation that orders the pixels as the error does gives equal curves (Ilg et al. 2018, arXiv
    1802.07095, sec. 4).
    """
    shares = np.round(np.arange(0.0, 1.0, 0.1), 1)
    curves = {}
    for name, key in (("by_spread", std), ("by_error", error)):
        squared = np.square(error[np.argsort(key, kind="stable")], dtype=np.float64)
        total = np.cumsum(squared)
        kept = np.maximum(1, np.rint((1 - shares) * len(squared)).astype(int))
        curves[name] = np.sqrt(total[kept - 1] / kept).tolist()
    return {"removed": shares.tolist(), **curves}


def _blocks(std: Floats, error: Floats, mask: Mask) -> tuple[Floats, Floats]:
    """RMS of both over blocks of the last two axes that lie in the mask for at least half."""
    rows, columns = (side // _BLOCK * _BLOCK for side in std.shape[-2:])

    def total(values: Floats) -> Floats:
        cut = values.reshape(-1, *values.shape[-2:])[:, :rows, :columns]
        found: Floats = cut.reshape(len(cut), rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK).sum((2, 4))
        return found

    weight = total(mask.astype(np.float64))
    kept = weight >= _BLOCK**2 / 2
    spread, wrong = (np.sqrt(total(np.where(mask, v, 0.0) ** 2)[kept] / weight[kept]) for v in (std, error))
    return spread, wrong


def _correlation(std: Floats, error: Floats) -> dict[str, float | None]:
    if std.size < 3 or np.ptp(std) == 0 or np.ptp(error) == 0:
        return {"pearson": None, "spearman": None}
    first, second = std.astype(np.float64), error.astype(np.float64)
    return {
        "pearson": float(np.corrcoef(first, second)[0, 1]),
        "spearman": float(stats.spearmanr(first, second).statistic),
    }


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))
