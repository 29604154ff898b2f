"""A channelised Hotelling observer: how well a known signal can be told from its absence in images.

PSNR averages over pixels and can prefer the image in which a lesion has vanished. A model observer answers the
question of the task: is the signal there? The channelised Hotelling observer is the best linear one among those that
see an image through a few channels (Myers and Barrett 1987, doi:10.1364/JOSAA.4.002447; Barrett and Myers 2004,
Foundations of Image Science, sec. 13.2 and 14.3).

With channels ``U`` (a column each), the image ``g`` becomes ``v = U^T g``. The template is ``w = S^-1 (m1 - m0)``,
with the means of ``v`` with and without signal and the mean ``S`` of both covariances. The observer says ``w . v``.
For Gaussian ``v`` its detectability is ``d' = sqrt((m1 - m0)^T S^-1 (m1 - m0))`` and the area under its ROC curve is
``AUC = Phi(d' / sqrt 2)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from deft_ct.evaluation.statistics import Interval

__all__ = ["Detectability", "detectability", "dog_channels", "laguerre_gauss_channels"]

Values = NDArray[np.float64]

_MOST_FOLDS, _FOLD = 10, 8
"""Folds, and signals that a fold should have at least."""


def laguerre_gauss_channels(side_px: int, *, width_px: float, count: int = 5) -> Values:
    """Channels for a round signal of known place: Laguerre polynomials times a Gaussian, orthonormal.

    ``U_p(r) = sqrt(2) / a exp(-pi r^2 / a^2) L_p(2 pi r^2 / a^2)`` (Gallas and Barrett 2003,
    doi:10.1364/JOSAA.20.001725, eq. 12), which comes close to the best observer that knows the signal. The first one
    alone is the matched filter of a Gaussian signal of standard deviation ``a / sqrt(2 pi)``.

    Args:
        side_px: side of the square patches, odd so that one pixel is the centre.
        width_px: ``a`` in pixels; about the diameter of the signal.
        count: number of channels.

    Returns:
        ``(side_px^2, count)``.

    Raises:
        ValueError: the side is not odd, or a number is not positive.
    """
    _check_patch(side_px)
    if not (width_px > 0 and count > 0):
        raise ValueError(f"width_px and count must be positive, got {width_px} and {count}")
    y, x = (np.indices((side_px, side_px)) - side_px // 2).reshape(2, -1).astype(np.float64)
    scaled = 2 * np.pi * (x**2 + y**2) / width_px**2
    gauss = math.sqrt(2) / width_px * np.exp(-scaled / 2)
    return np.stack([gauss * special.eval_laguerre(p, scaled) for p in range(count)], axis=1)


def dog_channels(
    side_px: int, *, lowest: float = 0.005, ratio: float = 1.4, spread: float = 1.67, count: int = 10
) -> Values:
    """Channels like those of human vision: differences of Gaussians in frequency.

    ``C_j(f) = exp(-(f / (Q s_j))^2 / 2) - exp(-(f / s_j)^2 / 2)`` with ``s_j = lowest * ratio^j``. The defaults are the
    dense channels of Abbey and Barrett 2001 (doi:10.1364/JOSAA.18.000473, sec. 2.D), made for patches of some 100
    pixels; the sparse ones are ``lowest=0.015, ratio=2, spread=2, count=3``.

    Args:
        side_px: side of the square patches, odd.
        lowest: ``s_0`` in cycles per pixel.
        ratio: of one width to the one before.
        spread: ``Q``, of the outer to the inner Gaussian.
        count: number of channels.

    Returns:
        ``(side_px^2, count)``, each centred and of norm one.

    Raises:
        ValueError: the side is not odd, or a number is out of range.
    """
    _check_patch(side_px)
    if not (lowest > 0 and ratio > 1 and spread > 1 and count > 0):
        raise ValueError(
            f"expected lowest > 0, ratio > 1, spread > 1 and count > 0, got {lowest}, {ratio}, {spread} and {count}"
        )
    padded = max(side_px, 1 + 2 * math.ceil(1 / lowest))  # so that the lowest channel is sampled well in frequency
    frequency = np.fft.fftfreq(padded)
    squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    first = (padded - side_px) // 2
    cut = slice(first, first + side_px)
    found = []
    for width in lowest * ratio ** np.arange(count):
        band = np.exp(-squared / (2 * (spread * width) ** 2)) - np.exp(-squared / (2 * width**2))
        kernel = np.fft.fftshift(np.fft.ifft2(band).real)[cut, cut]
        found.append((kernel / np.linalg.norm(kernel)).ravel())
    return np.stack(found, axis=1)


@dataclass(frozen=True, kw_only=True)
class Detectability:
    """How well an observer finds a signal.

    Attributes:
        auc: area under the ROC curve, with a bootstrap interval over patients (or over signals, if there is one
            patient); 0.5 is guessing, 1 is perfect. ``n`` is the number of patients, or of signals.
        signals: number of images with, and of images without the signal.
    """

    auc: Interval
    signals: int

    @property
    def d_prime(self) -> Interval:
        """``sqrt(2) Phi^-1(AUC)`` with its interval: the distance of the two answers in standard deviations."""
        mean, low, high = (
            float(math.sqrt(2) * stats.norm.ppf(value)) for value in (self.auc.mean, self.auc.low, self.auc.high)
        )
        return Interval(mean=mean, low=low, high=high, n=self.auc.n, confidence=self.auc.confidence)


def detectability(
    absent: Values, present: Values, channels: Values, *, patients: Sequence[str], seed: int = 0, resamples: int = 2000
) -> Detectability:
    """Train the observer and test it on patients that it was not trained on.

    Patients are split into at most ten folds (signals, if there is one patient). The template of a fold comes from all
    others, because an observer that is tested on its own training images would seem too good. Within a fold, every
    image with the signal is compared with every image without (Wilcoxon's estimate of the AUC). Two images of the same
    place are left out, because their background is the same.

    Args:
        absent: ``(n, side, side)``, patches without the signal.
        present: ``(n, side, side)``, patches with the signal in the middle; ``n`` of the same places.
        channels: ``(side^2, K)``.
        patients: ``(n,)``.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: shapes differ, or there are too few signals for so many channels.
    """
    count = len(absent)
    if absent.shape != present.shape or len(patients) != count or absent[0].size != len(channels):
        raise ValueError(
            f"expected as many patches with and without the signal, a patient for each, and channels of their size, "
            f"got {absent.shape}, {present.shape}, {len(patients)} and {channels.shape}"
        )
    single = len(set(patients)) < 2
    names = [str(n) for n in range(count)] if single else list(patients)
    folds = _folds(names)
    sizes = np.bincount(folds)
    least = count - int(sizes.max())
    if least < channels.shape[1] + 2 or sizes.max() < 2:
        raise ValueError(
            f"an observer with {channels.shape[1]} channels needs at least {channels.shape[1] + 2} signals for its "
            f"training, got {least}: use more slices or signals, or fewer channels"
        )
    without, with_signal = (patches.reshape(count, -1) @ channels for patches in (absent, present))
    wins, pairs = np.zeros((count, count)), np.zeros((count, count))
    for fold in np.unique(folds):
        test = folds == fold
        template = _template(without[~test], with_signal[~test])
        yes, no = with_signal[test] @ template, without[test] @ template
        block = np.ix_(test, test)
        wins[block] = (yes[:, None] > no[None, :]) + 0.5 * (yes[:, None] == no[None, :])
        pairs[block] = 1.0
    np.fill_diagonal(pairs, 0.0)
    wins *= pairs
    clusters = np.unique(names, return_inverse=True)[1]
    size = int(clusters.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), resamples)[:, clusters]
    total = ((drawn @ pairs) * drawn).sum(1)
    kept = total > 0
    low, high = np.quantile(((drawn @ wins) * drawn).sum(1)[kept] / total[kept], [0.025, 0.975])
    mean = float(wins.sum() / pairs.sum())
    auc = Interval(mean=mean, low=float(low), high=float(high), n=size, confidence=0.95)
    return Detectability(auc=auc, signals=count)


def _check_patch(side_px: int) -> None:
    if side_px < 3 or side_px % 2 == 0:
        raise ValueError(f"side_px must be odd and at least 3, got {side_px}")


def _folds(names: Sequence[str]) -> NDArray[np.int64]:
    """The fold of each image: the largest patients first, each into the smallest fold."""
    different, sizes = np.unique(np.asarray(names), return_counts=True)
    total = np.zeros(min(_MOST_FOLDS, max(2, len(names) // _FOLD), len(different)), dtype=np.int64)
    of: dict[str, int] = {}
    for k in np.argsort(-sizes, kind="stable"):
        smallest = int(np.argmin(total))
        of[str(different[k])] = smallest
        total[smallest] += sizes[k]
    return np.array([of[name] for name in names], dtype=np.int64)


def _template(without: Values, with_signal: Values) -> Values:
    """``S^-1 (m1 - m0)``; the pseudo-inverse, for channels that are nearly the same on a small patch."""
    covariance = (np.cov(without, rowvar=False) + np.cov(with_signal, rowvar=False)) / 2
    difference = with_signal.mean(0) - without.mean(0)
    return np.asarray(np.linalg.pinv(np.atleast_2d(covariance), rcond=1e-10, hermitian=True) @ difference)
