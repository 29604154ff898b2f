"""Paired differences between two methods that were measured on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from deft_ct.evaluation.statistics import Interval, cluster_interval, mean_interval


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


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two methods on the same images, with patients as the units of the statistics.

    Attributes:
        images: mean difference with its bootstrap interval over images.
        patients: the same mean, with its bootstrap interval over patients.
        p_value: of Wilcoxon's signed-rank test on the mean difference of each patient, two-sided; NaN with fewer than
            two patients or without any difference.
        smallest_p: the smallest p-value that so many patients can give, ``2 / 2^n``: with five patients 0.0625.
    """

    images: Interval
    patients: Interval
    p_value: float
    smallest_p: float


def paired_test(ours: ArrayLike, theirs: ArrayLike, patients: Sequence[str], *, seed: int = 0) -> PairedTest:
    """Compare two methods by patient.

    Slices of one patient are no independent repetitions, so that a test on slices finds differences where there are
    none. Wilcoxon's test is SciPy's, exact for up to 50 patients without ties.

    Args:
        ours: ``(n,)``, a value for each image; pairs with a NaN are left out.
        theirs: the same images in the same order.
        patients: of each image.
        seed: of the bootstrap.

    Raises:
        ValueError: the lengths differ, or no pair is left.
    """
    first, second = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if not len(first) == len(second) == len(patients):
        raise ValueError(
            f"expected a value of both methods and a patient for each image, got {len(first)}, {len(second)} and "
            f"{len(patients)}"
        )
    with np.errstate(invalid="ignore"):  # two infinite values have no difference
        gaps = first - second
    kept = ~np.isnan(gaps)
    if not kept.any():
        raise ValueError("a paired test needs at least one image that both methods have a value of")
    gaps, names = gaps[kept], np.asarray(patients, dtype=str)[kept]
    of = np.unique(names, return_inverse=True)[1]
    means = np.bincount(of, gaps) / np.bincount(of)
    tested = len(means) > 1 and bool(np.any(means != 0)) and bool(np.isfinite(means).all())
    return PairedTest(
        images=mean_interval(gaps, seed=seed), patients=cluster_interval(gaps, names.tolist(), seed=seed),
        p_value=float(stats.wilcoxon(means).pvalue) if tested else float("nan"), smallest_p=2.0 ** (1 - len(means)),
    )  # fmt: skip


def signed_interval(interval: Interval, digits: int = 2) -> str:
    """A difference as text, such as ``"+0.31 (+0.12 to +0.50)"``."""
    mean, low, high = (f"{value:+.{digits}f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} ({low} to {high})"
