"""Intervals of a spread network: the widths that are fitted, and what is reported of them."""

from __future__ import annotations

import numpy as np
import pytest

from deft_ct.evaluation.interval_fit import conformal_widths
from deft_ct.evaluation.spread import Deviations, deviation_report
from deft_ct.runtime.intervals import fitted_factor, normal_factor


def test_the_widths_are_the_quantiles_of_the_ratio():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2.0, 40_000)
    error = np.abs(scale * rng.laplace(size=scale.size))
    widths = conformal_widths([error], [scale])
    for level in (0.5, 0.8, 0.9, 0.95):  # of Laplace's density, in closed form
        assert widths[f"{level:g}"] == pytest.approx(-np.log(1 - level), rel=0.03)


def test_the_rank_is_that_of_split_conformal_prediction():
    ratios = np.arange(1.0, 20.0)  # n = 19: the ceil(20 * 0.9) = 18th smallest
    widths = conformal_widths([ratios], [np.ones(19)])
    assert widths == {"0.5": 10.0, "0.8": 16.0, "0.9": 18.0, "0.95": 19.0}


def test_every_scan_counts_equally():
    few, many = np.full(100, 1.0), np.full(10_000, 3.0)
    widths = conformal_widths([few, many], [np.ones(100), np.ones(10_000)])
    assert widths["0.5"] in (1.0, 3.0) and widths["0.8"] == 3.0
    assert conformal_widths([few, few, many], [np.ones(100)] * 2 + [np.ones(10_000)])["0.5"] == 1.0
    with pytest.raises(ValueError, match="no pixel"):
        conformal_widths([few, np.zeros(0)], [few, np.zeros(0)])


def test_levels_between_the_fitted_ones_are_interpolated():
    widths = {"0.5": 2 * normal_factor(0.5), "0.9": normal_factor(0.9)}
    assert fitted_factor(widths, 0.5) == pytest.approx(2 * normal_factor(0.5))
    assert fitted_factor(widths, 0.7) == pytest.approx(1.5 * normal_factor(0.7))
    assert fitted_factor(widths, 0.99) == pytest.approx(normal_factor(0.99))
    assert fitted_factor(widths, 0.1) == pytest.approx(2 * normal_factor(0.1))


def test_the_report_uses_the_intervals_that_belong_to_the_deviation():
    rng = np.random.default_rng(1)
    std = rng.uniform(1.0, 3.0, (2, 64, 64))
    error = np.abs(std * rng.laplace(size=std.shape))
    mask = np.ones(std.shape, bool)
    mask[:, :8] = False
    widths = {f"{level:g}": -np.log(1 - level) for level in (0.5, 0.8, 0.9, 0.95)}
    found = deviation_report(
        Deviations(error=error, std=std, mask=mask, factor=lambda level: fitted_factor(widths, level))
    )
    assert found["images"] == 2 and "samples" not in found
    for level, covered in found["coverage"]["all"].items():
        assert covered == pytest.approx(float(level), abs=0.015)
    plain = deviation_report(Deviations(error=error, std=std, mask=mask))
    assert plain["coverage"]["all"] == plain["coverage_normal"] and plain["coverage"]["all"]["0.95"] < 0.9
