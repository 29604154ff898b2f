"""Value ranges of images: [-1, 1] for diffusion priors, [0, 1] for pictures."""

from __future__ import annotations

import math

from torch import Tensor

ValueRange = tuple[float, float]


def rescale(x: Tensor, source: ValueRange, target: ValueRange) -> Tensor:
    """Affine map that takes the ends of ``source`` to the ends of ``target``; values outside are not clipped."""
    if source == target:
        return x
    factor = (target[1] - target[0]) / (source[1] - source[0])
    return (x - source[0]) * factor + target[0]


def check_range(owner: str, value_range: ValueRange) -> ValueRange:
    """The range as floats.

    Raises:
        ValueError: it is not two finite numbers, the smaller one first.
    """
    low, high = (float(end) for end in value_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{owner}: a value range is (low, high) with low < high, e.g. (-1, 1), got {value_range}")
    return low, high
