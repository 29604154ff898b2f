"""Paired differences of two methods."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from deft_ct.evaluation.paired import differences, paired_difference, signed_interval
from deft_ct.evaluation.statistics import mean_interval


def test_differences_are_paired() -> None:
    found = paired_difference([30.0, 35.0, 28.1], [29.0, 34.0, 27.0])
    assert found.mean == pytest.approx(31 / 30) and 0.8 < found.low < 1.0 < 1.0334 < found.high
    assert signed_interval(found).startswith("+1.03 (+0.")


def test_images_without_a_value_are_left_out_in_pairs() -> None:
    assert differences([1.0, None, 3.0, 4.0], [0.5, 9.0, None, math.nan]) == [0.5]


def test_paired_differences_are_known_better_than_either_mean() -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(30.0, 4.0, 50)
    ours, theirs = images + 0.5 + rng.normal(0, 0.1, 50), images
    found = paired_difference(ours, theirs)
    low, high = stats.t.interval(0.95, 49, loc=(ours - theirs).mean(), scale=stats.sem(ours - theirs))
    np.testing.assert_allclose([found.low, found.high], [low, high])
    assert found.high - found.low < 0.1 * (mean_interval(ours).high - mean_interval(ours).low)
    assert signed_interval(found) == f"{found.mean:+.2f} ({low:+.2f} to {high:+.2f})"
    assert paired_difference([1.0, math.nan, 3.0], [0.0, 0.0, 0.0]).n == 2


def test_lists_of_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])
