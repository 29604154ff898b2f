"""Intervals of means and of paired differences, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from deft_ct.evaluation.statistics import deviation, mean_interval


def test_intervals_agree_with_scipy() -> None:
    values = np.random.default_rng(0).normal(30.0, 2.0, 40)
    t = mean_interval(values, method="t", confidence=0.9)
    low, high = stats.t.interval(0.9, 39, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([t.mean, t.low, t.high], [values.mean(), low, high])
    ours = mean_interval(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], atol=0.03)
    assert ours == mean_interval(values) and ours != mean_interval(values, seed=1)
    assert ours.n == 40


def test_intervals_at_the_edge() -> None:
    alone = mean_interval([3.0])
    assert alone.mean == 3.0 and np.isnan(alone.low) and alone.n == 1
    assert mean_interval([1.0, np.nan, 3.0]).n == 2
    assert mean_interval([1.0, np.inf]).mean == np.inf
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([np.nan])
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        mean_interval([1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match="'bootstrap' or 't'"):
        mean_interval([1.0, 2.0], method="z")


def test_the_bootstrap_is_that_of_scipy() -> None:
    values = np.random.default_rng(2).exponential(3.0, 26)
    found = mean_interval(values, seed=4)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=4).confidence_interval
    assert (found.low, found.high) == (expected.low, expected.high)


def test_deviation_over_images() -> None:
    assert deviation([1.0, float("nan"), 3.0]) == pytest.approx(2**0.5)
    assert np.isnan(deviation([1.0]))
