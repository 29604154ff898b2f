"""Samples whose distance from the mean is that of the predicted error.

For exact samples of the posterior, the squared distance of a sample from the posterior mean is on average the squared
error of the mean. Samples of a trained network in few steps miss this: at some scans they are too alike, at others
too different. The spread network knows how large the error is. So each sample is moved along the line through the
mean, by one factor for the whole image. Its texture and its features stay; only their contrast against the mean
changes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deft_ct.methods.deft.spread_network import MAIN_LEVEL
from deft_ct.runtime.intervals import LEVELS, interval_factor, normal_factor

SAMPLE_FACTORS = "sample_factors"
"""Key of the record for the smallest and the largest factor of a result."""
MOST = 3.0
"""Largest factor, and the inverse of the smallest one."""


def matched(samples: Tensor, mean: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """Scale the distance of samples from the mean.

    Args:
        samples: ``(B, N, *image_shape)``.
        mean: ``(B, *image_shape)``, of the same unit.
        energy: ``(B,)``, the mean squared error that is predicted for the mean of each image.

    Returns:
        ``(B, N, *image_shape)``, and the factors ``(B, N)``. A sample depends on no other sample.
    """
    centre = mean[:, None]
    away = samples - centre
    own = away.square().flatten(2).mean(2)
    factors = (energy[:, None] / own).sqrt().nan_to_num(1.0, posinf=MOST).clamp(1 / MOST, MOST)
    return centre + factors.reshape(*factors.shape, *(1,) * (mean.ndim - 1)) * away, factors


def matched_spread(std: Tensor, count: int, *, around_samples: bool) -> tuple[Tensor, dict[str, Any]]:
    """The reported standard deviation of matched samples, such that ``+- 1.645`` of it are the 90 % interval.

    Matched samples need no calibration. Their number is small, so the intervals are those of Student's distribution.

    Args:
        std: of the samples.
        count: how many there are.
        around_samples: whether the reconstruction is their mean.

    Returns:
        The standard deviation, and its record with the half widths of each level in units of it.
    """
    few = interval_factor(MAIN_LEVEL, count, around_samples=around_samples) / normal_factor(MAIN_LEVEL)
    widths = {f"{level:g}": interval_factor(level, count, around_samples=around_samples) / few for level in LEVELS}
    return std * few, {"calibrated": True, "by": "matched samples", "level": MAIN_LEVEL, "half_widths": widths}
