"""Paired differences of two methods."""

from __future__ import annotations

import math

import pytest

from deft_ct.evaluation.paired import differences, paired_difference, signed_interval


def test_differences_are_paired() -> None:
    found = paired_difference([30.0, 35.0, 28.1], [29.0, 34.0, 27.0])
    assert found.mean == pytest.approx(31 / 30) and 0.8 < found.low < 1.0 < 1.0334 < found.high
    assert signed_interval(found).startswith("+1.03 (+0.")


def test_images_without_a_value_are_left_out_in_pairs() -> None:
    assert differences([1.0, None, 3.0, 4.0], [0.5, 9.0, None, math.nan]) == [0.5]


def test_lists_of_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])
