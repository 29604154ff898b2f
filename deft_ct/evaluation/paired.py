"""Paired differences between two methods that were measured on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deft_ct.evaluation.statistics import Interval, mean_interval


def paired_difference(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Interval:
    """Mean of ``ours - theirs`` over images, with a 95 % Student interval.

    Pairing removes what makes an image easy or hard for both methods, so the interval of the difference is narrower
    than the intervals of the two means.

    Args:
        ours: a value for each image; None or NaN if undefined. Such pairs are left out.
        theirs: the same images in the same order.

    Raises:
        ValueError: the lengths differ, or no pair is left.
    """
    return mean_interval(differences(ours, theirs), method="t")


def differences(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float]:
    """``ours - theirs`` for each image where both are defined (neither None nor NaN).

    Raises:
        ValueError: the lengths differ.
    """
    found = [a - b for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    return [value for value in found if not np.isnan(value)]


def signed_interval(interval: Interval, digits: int = 2) -> str:
    """A difference as text, such as ``"+0.31 (+0.12 to +0.50)"``."""
    mean, low, high = (f"{value:+.{digits}f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} ({low} to {high})"
