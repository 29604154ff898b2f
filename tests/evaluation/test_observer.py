"""The observer against closed forms: a known signal in Gaussian noise, white and correlated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from deft_ct.evaluation.observer import detectability, dog_channels, laguerre_gauss_channels

SIDE = 21


def gauss_signal(sigma: float, height: float) -> np.ndarray:
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    return height * np.exp(-(x**2 + y**2) / (2 * sigma**2))


def area(d_prime: float) -> float:
    return float(stats.norm.cdf(d_prime / np.sqrt(2)))


def of_patients(count: int, each: int = 4) -> list[str]:
    return [f"p{n // each}" for n in range(count)]


def test_laguerre_gauss_channels_are_orthonormal() -> None:
    found = laguerre_gauss_channels(41, width_px=9.0)
    np.testing.assert_allclose(found.T @ found, np.eye(5), atol=1e-5)
    first = gauss_signal(6.0 / np.sqrt(2 * np.pi), 1.0).ravel()
    matched = laguerre_gauss_channels(SIDE, width_px=6.0)[:, 0]
    assert np.corrcoef(first, matched)[0, 1] == pytest.approx(1.0)


def test_dog_channels_pass_bands_of_growing_frequency() -> None:
    found = dog_channels(101)
    assert found.shape == (101**2, 10)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1.0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(101)] * 2))
    peaks = [
        frequency.ravel()[np.abs(np.fft.fft2(channel.reshape(101, 101))).argmax()] for channel in found.T[3:]
    ]  # fmt: skip
    widths = 0.005 * 1.4 ** np.arange(3, 10)
    # exp(-f^2/2Q^2) - exp(-f^2/2) in units of the width has its maximum at f^2 = 4 Q^2 ln Q / (Q^2 - 1).
    best = np.sqrt(4 * 1.67**2 * np.log(1.67) / (1.67**2 - 1))
    np.testing.assert_allclose(peaks, best * widths, atol=0.011)


@pytest.mark.parametrize("d_prime", [0.0, 1.0, 2.0])
def test_a_known_signal_in_white_noise(d_prime: float) -> None:
    """The best observer has ``d' = |s| / sigma``, and the first channel is its template."""
    rng = np.random.default_rng(4)
    count, sigma = 400, 25.0
    signal = gauss_signal(2.4, 1.0)
    signal *= d_prime * sigma / np.linalg.norm(signal)
    absent, present = rng.normal(0, sigma, (2, count, SIDE, SIDE))
    channels = laguerre_gauss_channels(SIDE, width_px=2.4 * np.sqrt(2 * np.pi))
    found = detectability(absent, present + signal, channels, patients=of_patients(count))
    assert found.auc.low <= area(d_prime) <= found.auc.high and found.auc.mean == pytest.approx(area(d_prime), abs=0.03)
    assert found.d_prime.mean == pytest.approx(d_prime, abs=0.18)
    assert found.auc.n == 100 and found.signals == 400


def test_channels_in_correlated_noise() -> None:
    """Through channels ``d'^2 = (U^T s)^T (U^T K U)^-1 (U^T s)`` with the covariance K of the noise."""
    rng = np.random.default_rng(5)
    count = 500
    field = 60 * ndimage.gaussian_filter(rng.normal(size=(2 * count, 41, 41)), (0, 1.5, 1.5))[:, 10:31, 10:31]
    impulse = np.zeros((41, 41))
    impulse[20, 20] = 1.0
    kernel = 60 * ndimage.gaussian_filter(impulse, 1.5)
    line = ndimage.correlate(np.pad(kernel, 20), kernel, mode="constant")[20:61, 20:61]
    y, x = np.indices((SIDE, SIDE)).reshape(2, -1)
    covariance = line[20 + np.subtract.outer(y, y), 20 + np.subtract.outer(x, x)]
    signal = gauss_signal(2.0, 12.0)
    channels = dog_channels(SIDE, lowest=0.03, ratio=1.8, count=4)
    seen = channels.T @ signal.ravel()
    exact = float(np.sqrt(seen @ np.linalg.solve(channels.T @ covariance @ channels, seen)))
    assert 0.7 < exact < 2.5
    found = detectability(field[:count], field[count:] + signal, channels, patients=of_patients(count))
    assert found.auc.mean == pytest.approx(area(exact), abs=0.03)


def test_the_observer_is_not_tested_on_its_training() -> None:
    """With few images and many channels, noise alone would look like a signal."""
    rng = np.random.default_rng(6)
    absent, present = rng.normal(size=(2, 40, SIDE, SIDE))
    channels = rng.normal(size=(SIDE**2, 20))
    found = detectability(absent, present, channels, patients=of_patients(40, each=2))
    assert 0.35 < found.auc.mean < 0.65
    v0, v1 = (patches.reshape(40, -1) @ channels for patches in (absent, present))
    template = np.linalg.solve((np.cov(v0.T) + np.cov(v1.T)) / 2, v1.mean(0) - v0.mean(0))
    resubstituted = (v1 @ template)[:, None] > (v0 @ template)[None, :]
    assert resubstituted.mean() > 0.7


def test_one_patient_has_an_interval_over_signals() -> None:
    absent, present = np.random.default_rng(7).normal(size=(2, 60, SIDE, SIDE))
    channels = laguerre_gauss_channels(SIDE, width_px=6.0)
    found = detectability(absent, present + gauss_signal(2.4, 0.35), channels, patients=["a"] * 60)
    assert found.auc.n == 60 and found.auc.low < found.auc.mean < 1.0


def test_bad_input_is_named() -> None:
    patches, channels = np.zeros((6, SIDE, SIDE)), laguerre_gauss_channels(SIDE, width_px=6.0)
    with pytest.raises(ValueError, match="needs at least 7 signals for its training, got"):
        detectability(patches, patches, channels, patients=list("abcdef"))
    with pytest.raises(ValueError, match="as many patches with and without"):
        detectability(patches, patches[:5], channels, patients=list("abcdef"))
    with pytest.raises(ValueError, match="must be odd"):
        dog_channels(20)
    with pytest.raises(ValueError, match="must be positive"):
        laguerre_gauss_channels(21, width_px=0)
    with pytest.raises(ValueError, match="ratio > 1"):
        dog_channels(21, ratio=1.0)
