"""How far a spread can be believed: coverage of intervals, correlation with the error, sparsification.

**Intervals of a few samples.** Let an image and ``N`` samples be independent draws from one posterior of standard
deviation ``s``, and ``S`` the sample standard deviation (``N - 1`` in the denominator). The error of the mean of the
samples has variance ``s^2 (1 + 1/N)``, and over ``S sqrt(1 + 1/N)`` it follows Student's t with ``N - 1`` degrees of
freedom when the posterior is Gaussian. The central interval of level ``p`` is thus ``mean +- q S`` with
``q = t_{N-1}((1 + p) / 2) sqrt(1 + 1/N)``, and without the root around the exact posterior mean. For N = 4 and 90 %,
``q`` is 2.63 and not 1.645: intervals of 1.645 S cover 76 % though nothing is wrong with the samples. Intervals of a
raw spread use ``q`` here, so that exact samples cover as they should for any N. A calibrated spread has taken this in
and is read as a standard deviation: its intervals are those of the normal distribution, ``+- 1.645`` for 90 %.

Without assuming a shape: between the j-th lowest and the j-th highest of N samples the truth lies with probability
``(N + 1 - 2 j) / (N + 1)``, which are the only levels that N samples can give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from deft_ct.evaluation.statistics import mean_interval
from deft_ct.runtime.intervals import interval_factor, normal_factor

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

LEVELS = (0.5, 0.8, 0.9, 0.95)
_BLOCK = 16
_EDGE_HU_PER_PIXEL = 60.0
_BINS = 12


class Rescaling(Protocol):
    """What turns the spread of samples into a calibrated one, whose intervals are those of a normal distribution."""

    def rescaled(self, std: Floats, count: int) -> Floats:
        """The calibrated standard deviation, in HU, of that of so many samples."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Posterior samples of slices that are known.

    Attributes:
        truth: ``(n, H, W)`` HU.
        centre: ``(n, H, W)`` HU, the reconstruction.
        samples: ``(n, N, H, W)`` HU, at least two for each slice.
        body: ``(n, H, W)``, see :func:`~deft_ct.evaluation.metrics.body_mask`.
        around_samples: whether the centre is the mean of the samples, and not a mean that was estimated without them.

    Raises:
        ValueError: shapes do not fit, or there are fewer than two samples.
    """

    truth: Floats
    centre: Floats
    samples: Floats
    body: Mask
    around_samples: bool = True

    def __post_init__(self) -> None:
        shape = self.truth.shape
        if self.centre.shape != shape or self.body.shape != shape or len(shape) != 3:
            raise ValueError(
                f"truth, centre and body must be (n, H, W), got {shape}, {self.centre.shape}, {self.body.shape}"
            )
        if self.samples.ndim != 4 or (len(self.samples), *self.samples.shape[2:]) != shape:
            raise ValueError(f"samples must be (n, N, H, W) for images {shape}, got {self.samples.shape}")
        if self.count < 2:
            raise ValueError("a spread needs at least two samples of each slice, got 1")

    @property
    def count(self) -> int:
        """Samples of each slice."""
        return self.samples.shape[1]

    @property
    def std(self) -> Floats:
        """``(n, H, W)`` HU, standard deviation of the samples."""
        found: Floats = self.samples.std(1, ddof=1)
        return found

    @property
    def error(self) -> Floats:
        """``(n, H, W)`` HU, absolute error of the centre."""
        found: Floats = np.abs(self.truth - self.centre)
        return found

    def factor(self, level: float) -> float:
        """Half width of the interval of a level, in standard deviations."""
        return interval_factor(level, self.count, around_samples=self.around_samples)


def regions(truth: Floats, body: Mask) -> dict[str, Mask]:
    """Parts of the body, from the true image.

    Args:
        truth: ``(n, H, W)`` HU.
        body: ``(n, H, W)``.

    Returns:
        ``"body"``; ``"edges"``: smoothed gradient above 60 HU a pixel; and away from edges ``"soft_tissue"``, -150 to
        150 HU, ``"lung"``, below -500 HU, and ``"interior"``: everything at least 4 pixels inside the body.
    """
    smooth = np.stack([ndimage.gaussian_filter(s.astype(np.float64), 1.0) for s in truth])
    gradient = np.stack([ndimage.gaussian_gradient_magnitude(s.astype(np.float64), 1.0) for s in truth])
    edges = body & (gradient > _EDGE_HU_PER_PIXEL)
    calm = body & ~edges
    inside = np.stack([ndimage.binary_erosion(s, iterations=4) for s in body])
    return {
        "body": body,
        "interior": calm & inside,
        "edges": edges,
        "soft_tissue": calm & (np.abs(smooth) < 150),
        "lung": calm & (smooth < -500),
    }


def spread_report(draws: Draws, calibration: Rescaling | None = None) -> dict[str, Any]:
    """Everything about a spread, as plain values.

    Args:
        draws: samples of known slices.
        calibration: applied to the spread; the raw one when None.

    Returns:
        ``coverage`` of :data:`LEVELS` by region, ``coverage_normal`` (of the body by the intervals of a normal
        distribution), ``coverage_90`` with its bootstrap interval over slices,
        ``reliability`` (nominal against observed), ``rank_coverage`` and ``rank_histogram`` of the samples themselves,
        ``correlation`` of spread and absolute error by region and over blocks of 16 x 16 pixels, ``spread_and_error``
        (RMS error in bins of the spread) and ``sparsification`` (RMSE of what remains as the pixels of largest spread
        are taken out, beside the best possible order), spread and error in HU.
    """
    std = draws.std if calibration is None else calibration.rescaled(draws.std, draws.count)
    factor = draws.factor if calibration is None else normal_factor
    error, body = draws.error, draws.body
    ratio = error / np.maximum(std, np.finfo(np.float32).tiny)
    masks = {name: mask for name, mask in regions(draws.truth, body).items() if mask.any()}
    nominal = np.round(np.arange(0.05, 1.0, 0.05), 2)
    inside = ratio[body]
    covered = ratio <= factor(0.9)
    per_slice = [float(c[m].mean()) for c, m in zip(covered, body, strict=True) if m.any()]
    overall = mean_interval(per_slice)
    return {
        "slices": len(error),
        "samples": draws.count,
        "pixels": int(body.sum()),
        "around_samples": draws.around_samples,
        "rms_spread_hu": _rms(std[body]),
        "rmse_hu": _rms(error[body]),
        "coverage": {
            name: {f"{level:g}": float((ratio[mask] <= factor(level)).mean()) for level in LEVELS}
            for name, mask in masks.items()
        },
        "coverage_normal": {f"{level:g}": float((inside <= normal_factor(level)).mean()) for level in LEVELS},
        "coverage_90": {
            "mean": overall.mean, "low": _number(overall.low), "high": _number(overall.high), "per_slice": per_slice,
        },
        "reliability": {
            "nominal": nominal.tolist(),
            "observed": [float((inside <= factor(float(level))).mean()) for level in nominal],
        },
        "rank_coverage": rank_coverage(draws),
        "rank_histogram": rank_histogram(draws),
        "correlation": {
            **{name: _correlation(std[mask], error[mask]) for name, mask in masks.items()},
            "blocks": _correlation(*_blocks(std, error, body)),
        },
        "spread_and_error": spread_and_error(std[body], error[body]),
        "sparsification": sparsification(std[body], error[body]),
    }  # fmt: skip


def rank_histogram(draws: Draws) -> list[float]:
    """Share of body pixels whose truth has rank 0 .. N among the samples; ``1 / (N + 1)`` each if they are exact."""
    below = (draws.samples < draws.truth[:, None]).sum(1)
    equal = (draws.samples == draws.truth[:, None]).sum(1)
    counts = np.zeros(draws.count + 1)
    for low, ties in ((below[draws.body], equal[draws.body]),):
        for extra in range(draws.count + 1):  # ties, of clipped values above all, are shared out evenly
            chosen = ties >= extra
            np.add.at(counts, low[chosen] + extra, 1 / (ties[chosen] + 1))
    found: list[float] = (counts / counts.sum()).tolist()
    return found


def rank_coverage(draws: Draws) -> list[dict[str, float]]:
    """Coverage of the body between the j-th lowest and j-th highest sample, beside its nominal level."""
    ordered = np.sort(draws.samples, axis=1)
    out = []
    for j in range(draws.count // 2):
        inside = (ordered[:, j] <= draws.truth) & (draws.truth <= ordered[:, draws.count - 1 - j])
        nominal = (draws.count - 1 - 2 * j) / (draws.count + 1)
        out.append({"nominal": nominal, "observed": float(inside[draws.body].mean())})
    return out


def spread_and_error(std: Floats, error: Floats, bins: int = _BINS) -> dict[str, list[float]]:
    """RMS spread and RMS error, in HU, of equally many pixels each, ordered by spread; equal if calibrated."""
    parts = np.array_split(np.argsort(std, kind="stable"), bins)
    return {
        "spread_hu": [_rms(std[part]) for part in parts if part.size],
        "rmse_hu": [_rms(error[part]) for part in parts if part.size],
    }


def sparsification(std: Floats, error: Floats) -> dict[str, list[float]]:
    """RMSE (HU) of what remains after a share of the pixels is removed: largest spread first, and largest error first.

    A spread that orders the pixels as the error does gives equal curves (Ilg et al. 2018, arXiv 1802.07095, sec. 4).
    """
    shares = np.round(np.arange(0.0, 1.0, 0.1), 1)
    curves = {}
    for name, key in (("by_spread_hu", std), ("by_error_hu", error)):
        squared = np.square(error[np.argsort(key, kind="stable")], dtype=np.float64)
        total = np.cumsum(squared)
        kept = np.maximum(1, np.rint((1 - shares) * len(squared)).astype(int))
        curves[name] = np.sqrt(total[kept - 1] / kept).tolist()
    return {"removed": shares.tolist(), **curves}


def _blocks(std: Floats, error: Floats, body: Mask) -> tuple[Floats, Floats]:
    """RMS of spread and error over blocks that lie in the body for at least half."""
    rows, columns = (side // _BLOCK * _BLOCK for side in std.shape[1:])

    def total(values: Floats) -> Floats:
        cut = values[:, :rows, :columns]
        found: Floats = cut.reshape(len(cut), rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK).sum((2, 4))
        return found

    weight = total(body.astype(np.float64))
    kept = weight >= _BLOCK**2 / 2
    spread, wrong = (np.sqrt(total(np.where(body, v, 0.0) ** 2)[kept] / weight[kept]) for v in (std, error))
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


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
