"""Half widths of intervals, in standard deviations."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Levels of the intervals that are fitted, recorded and reported."""


def interval_factor(level: float, count: int, *, around_samples: bool = True) -> float:
    """``q`` of the interval ``centre +- q S`` that covers as it should when the samples are exact; see the module.

    Args:
        level: nominal coverage, between 0 and 1.
        count: samples that ``S`` was taken of.
        around_samples: whether the centre is the mean of these samples.

    Raises:
        ValueError: the level lies outside (0, 1), or there are fewer than two samples.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if count < 2:
        raise ValueError(f"an interval needs at least two samples, got {count}")
    quantile = float(stats.t.ppf((1 + level) / 2, count - 1))
    return quantile * (math.sqrt(1 + 1 / count) if around_samples else 1.0)


def normal_factor(level: float) -> float:
    """Half width of the central interval of a normal distribution, in standard deviations.

    Raises:
        ValueError: the level lies outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return float(stats.norm.ppf((1 + level) / 2))


def fitted_factor(half_widths: Mapping[str, float], level: float) -> float:
    """Half width of the interval of a level, from those that were fitted, in standard deviations.

    Between fitted levels, the ratio to the normal distribution is interpolated; beyond them it stays.

    Args:
        half_widths: level (``"0.9"``) -> half width.
        level: between 0 and 1.

    Raises:
        ValueError: the level lies outside (0, 1).
    """
    known = sorted((float(name), width) for name, width in half_widths.items())
    levels = [one for one, _ in known]
    ratios = [width / normal_factor(one) for one, width in known]
    return normal_factor(level) * float(np.interp(level, levels, ratios))
