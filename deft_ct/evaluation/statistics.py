"""Means over images with their confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over images with a two-sided confidence interval.

    Images of one patient resemble each other. An interval over the images of few patients is thus too narrow for
    another patient: it says how well the mean of these images is known. That of :func:`cluster_interval` is for other
    patients.

    Attributes:
        mean: over the images.
        low: lower end of the interval.
        high: upper end of the interval.
        n: number of images, or of patients.
        confidence: of the interval, between 0 and 1.
    """

    mean: float
    low: float
    high: float
    n: int
    confidence: float


def mean_interval(
    values: ArrayLike, *, confidence: float = 0.95, method: str = "bootstrap", seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Mean of one value per image and its confidence interval.

    Args:
        values: ``(n,)``; NaN entries (for example slices without a body) are left out and not counted.
        confidence: of the two-sided interval, between 0 and 1.
        method: ``"bootstrap"`` for SciPy's percentile bootstrap over images, or ``"t"`` for Student's interval.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        The interval; its ends are NaN for fewer than two values, and for infinite values.

    Raises:
        ValueError: no value is left, or an option is out of range.
    """
    data = np.asarray(values, dtype=np.float64).ravel()
    data = data[~np.isnan(data)]
    if not data.size:
        raise ValueError("mean_interval needs at least one value that is not NaN")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if method not in ("bootstrap", "t"):
        raise ValueError(f"method must be 'bootstrap' or 't', got {method!r}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    mean = float(data.mean())
    if data.size < 2 or not np.isfinite(mean):
        low = high = float("nan")
    elif method == "t":
        half = float(stats.t.ppf(0.5 + confidence / 2, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size))
        low, high = mean - half, mean + half
    else:
        found = stats.bootstrap(
            (data,), np.mean, n_resamples=resamples, confidence_level=confidence, method="percentile", rng=seed
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return Interval(mean=mean, low=low, high=high, n=int(data.size), confidence=confidence)


def cluster_interval(
    values: ArrayLike, clusters: Sequence[str], *, confidence: float = 0.95, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Mean of one value per image, with a bootstrap interval over patients (or other clusters of images).

    Whole patients are drawn with replacement, with all their images; the mean is over the images drawn. It is SciPy's
    percentile bootstrap of a ratio of sums (cluster bootstrap: Davison and Hinkley 1997, Bootstrap Methods and their
    Application, sec. 3.8). With few patients it is too narrow, and with one there is none.

    Args:
        values: ``(n,)``; NaN entries are left out and not counted.
        clusters: ``(n,)``, the patient of each image.
        confidence: of the two-sided interval, between 0 and 1.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        The interval, with the number of patients as ``n``; its ends are NaN for fewer than two patients, and for
        infinite values.

    Raises:
        ValueError: the lengths differ, no value is left, or an option is out of range.
    """
    data = np.asarray(values, dtype=np.float64).ravel()
    if len(data) != len(clusters):
        raise ValueError(f"each value needs its patient, got {len(data)} values and {len(clusters)} patients")
    kept = ~np.isnan(data)
    if not kept.any():
        raise ValueError("cluster_interval needs at least one value that is not NaN")
    if not 0.0 < confidence < 1.0 or resamples < 1:
        raise ValueError(f"expected confidence in (0, 1) and resamples >= 1, got {confidence} and {resamples}")
    data, of = data[kept], np.unique(np.asarray(clusters, dtype=str)[kept], return_inverse=True)[1]
    totals, counts = np.bincount(of, data), np.bincount(of).astype(np.float64)
    mean = float(data.mean())
    low = high = float("nan")
    if len(counts) > 1 and np.isfinite(mean):
        found = stats.bootstrap(
            (totals, counts), lambda total, count, axis: total.sum(axis) / count.sum(axis), paired=True,
            n_resamples=resamples, confidence_level=confidence, method="percentile", rng=seed,
        ).confidence_interval  # fmt: skip
        low, high = float(found.low), float(found.high)
    return Interval(mean=mean, low=low, high=high, n=len(counts), confidence=confidence)


def deviation(values: ArrayLike) -> float:
    """Standard deviation over images (``n - 1`` in the denominator), NaN entries left out; NaN for fewer than two."""
    data = np.asarray(values, dtype=np.float64).ravel()
    data = data[~np.isnan(data)]
    return float(data.std(ddof=1)) if len(data) > 1 else float("nan")
