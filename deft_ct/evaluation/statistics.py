"""Means over images with their confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over slices with a two-sided confidence interval.

    Slices of one patient resemble each other, so an interval over the slices of few patients is too narrow: it says how
    well the mean of *these* scans is known, not how another patient would do.
    """

    mean: float
    low: float
    high: float
    n: int
    confidence: float


def mean_interval(
    values: ArrayLike, *, confidence: float = 0.95, method: str = "bootstrap", seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Mean of per-slice values and its confidence interval.

    Args:
        values: ``(n,)``; NaN entries (slices without a body) are left out and not counted.
        confidence: of the two-sided interval, between 0 and 1.
        method: ``"bootstrap"`` (percentile, resampling slices) or ``"t"`` (Student).
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
        picks = np.random.default_rng(seed).integers(data.size, size=(resamples, data.size))
        tail = (1.0 - confidence) / 2
        low, high = (float(q) for q in np.quantile(data[picks].mean(axis=1), [tail, 1.0 - tail]))
    return Interval(mean=mean, low=low, high=high, n=int(data.size), confidence=confidence)
