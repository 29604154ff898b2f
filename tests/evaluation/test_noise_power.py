"""The noise power spectrum against Parseval's theorem and against spectra in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from deft_ct.evaluation.noise_power import noise_power, noise_power_of_images, uniform_tiles

PIXEL = 0.8


def everywhere(side: int) -> list[tuple[int, int]]:
    return uniform_tiles(np.ones((side, side), dtype=np.bool_))


def test_tiles_cover_a_uniform_region_without_overlap() -> None:
    assert everywhere(64) == [(r, c) for r in range(0, 64, 16) for c in range(0, 64, 16)]
    flat = np.zeros((40, 40), dtype=np.bool_)
    flat[3:20, 5:38] = True
    flat[7, 22] = False
    assert uniform_tiles(flat) == [(3, 5)]  # the pixel at column 22 is in every square from column 7 to 22
    assert uniform_tiles(flat[:10]) == []


def test_white_noise_has_a_flat_spectrum_of_its_variance() -> None:
    noise = np.random.default_rng(0).normal(0, 25.0, (512, 512))
    found = noise_power(noise, everywhere(512), pixel_mm=PIXEL)
    assert found.frequency[0] == pytest.approx(1 / (16 * PIXEL)) and found.frequency[-1] == pytest.approx(0.5 / PIXEL)
    # The plane takes 3 of 256 degrees of freedom, at the lowest frequencies.
    assert found.variance == pytest.approx(25.0**2 * 253 / 256, rel=0.02)
    np.testing.assert_allclose(found.power[1:], 25.0**2 * PIXEL**2, rtol=0.05)
    assert found.mean_frequency == pytest.approx(found.frequency.mean(), rel=0.02)


def test_parseval() -> None:
    tile = np.random.default_rng(1).normal(size=(16, 16))
    design = np.stack([np.ones(256), *np.indices((16, 16)).reshape(2, -1)], axis=1)
    rest = tile - (design @ np.linalg.lstsq(design, tile.ravel(), rcond=None)[0]).reshape(16, 16)
    power = np.abs(np.fft.fft2(rest)) ** 2 * PIXEL**2 / 256
    found = noise_power(tile, [(0, 0)], pixel_mm=PIXEL)
    assert found.variance == pytest.approx(power.sum() / (16 * PIXEL) ** 2)
    along = [np.abs(np.hypot(*np.meshgrid(*[np.fft.fftfreq(16, 1 / 16)] * 2)) - k) < 0.5 for k in range(1, 9)]
    np.testing.assert_allclose(found.power, [power[ring].mean() for ring in along])
    unknown = noise_power(tile, [(0, 0)], pixel_mm=np.nan)
    assert unknown.deviation == found.deviation and np.isnan(unknown.mean_frequency)


def expected_rings(sigma_px: float) -> np.ndarray:
    """Mean spectrum of blurred white noise in a square, less a plane, from the covariance of its pixels."""
    reach = np.arange(-15, 16)
    kernel = ndimage.gaussian_filter1d(np.eye(201)[100], sigma_px)
    line = np.correlate(kernel, kernel, "full")[200 + reach]
    toeplitz = line[15 + np.subtract.outer(np.arange(16), np.arange(16))]
    design = np.stack([np.ones(256), *np.indices((16, 16)).reshape(2, -1)], axis=1)
    without = np.eye(256) - design @ np.linalg.pinv(design)
    dft = np.kron(*[np.fft.fft(np.eye(16))] * 2)
    bins = np.einsum("ki,ij,kj->k", dft, without @ np.kron(toeplitz, toeplitz) @ without, dft.conj()).real
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(16, 1 / 16)] * 2)).ravel()
    return np.array([bins[np.abs(radius - k) < 0.5].mean() for k in range(1, 9)]) * PIXEL**2 / 256


@pytest.mark.parametrize("sigma_px", [0.8, 1.2])
def test_the_spectrum_of_blurred_noise_follows_from_its_covariance(sigma_px: float) -> None:
    white = np.random.default_rng(2).normal(size=(1024, 1024))
    blurred = ndimage.gaussian_filter(white, sigma_px, mode="wrap")
    expected = expected_rings(sigma_px)
    found = noise_power(blurred, everywhere(1024), pixel_mm=PIXEL)
    np.testing.assert_allclose(found.power, expected, rtol=0.05)
    mean = (found.frequency * expected).sum() / expected.sum()
    assert found.mean_frequency == pytest.approx(mean, rel=0.01)
    assert mean < 0.75 * found.frequency.mean()  # coarser than white noise


def test_a_shade_is_no_noise_and_images_without_a_region_have_no_spectrum() -> None:
    y, x = np.indices((32, 32))
    assert noise_power(3.0 * x - 2.0 * y + 7, everywhere(32), pixel_mm=1.0).deviation == pytest.approx(0, abs=1e-9)
    error, flat = np.ones((2, 32, 32)), np.ones((2, 32, 32), dtype=np.bool_)
    flat[1, ::15] = False
    first, second = noise_power_of_images(error, flat, pixel_mm=np.array([1.0, 2.0]))
    assert first is not None and second is None
    with pytest.raises(ValueError, match="at least one uniform region"):
        noise_power(error[0], [], pixel_mm=1.0)
