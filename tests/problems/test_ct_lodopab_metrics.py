"""PSNR and SSIM of LoDoPaB-CT equal dival's formulas, written here a second time with scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from deft_ct.datasets.lodopab import MU_MAX
from deft_ct.problems.ct_lodopab_metrics import LODOPAB_CONVENTIONS, lodopab_quality, lodopab_values


def dival_psnr(recon: np.ndarray, truth: np.ndarray, data_range: float | None) -> float:
    mse = np.mean((recon - truth) ** 2)
    peak = np.max(truth) - np.min(truth) if data_range is None else data_range
    return float(20 * np.log10(peak) - 10 * np.log10(mse))


def dival_ssim(recon: np.ndarray, truth: np.ndarray, data_range: float | None) -> float:
    peak = np.max(truth) - np.min(truth) if data_range is None else data_range
    return float(structural_similarity(recon, truth, data_range=peak))


def pair() -> tuple[np.ndarray, np.ndarray]:
    """Images in [0, 1] of unlike ranges, and reconstructions that leave [0, 1]."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-1:1:40j, -1:1:44j]
    disk = (np.hypot(x, y) < 0.8).astype(float)
    truth = np.stack([0.25 * disk, 0.1 + 0.6 * disk * (x + 1), np.clip(disk + 0.3 * rng.normal(size=disk.shape), 0, 1)])
    return truth + rng.normal(0, 0.05, truth.shape), truth


def test_both_conventions_equal_those_of_dival() -> None:
    recon, truth = pair()
    found = lodopab_quality(recon, truth)
    assert list(found) == [metric.name for metric in LODOPAB_CONVENTIONS]
    for name, reference, data_range in (
        ("psnr_lodopab", dival_psnr, None), ("psnr_fr", dival_psnr, 1.0),
        ("ssim_lodopab", dival_ssim, None), ("ssim_fr", dival_ssim, 1.0),
    ):  # fmt: skip
        expected = [reference(a, b, data_range) for a, b in zip(recon, truth, strict=True)]
        np.testing.assert_allclose(found[name], expected, atol=1e-6, rtol=0)
    # At a fixed range PSNR is higher by 20 log10 of the range of the image, which differs from image to image.
    gain = found["psnr_fr"] - found["psnr_lodopab"]
    np.testing.assert_allclose(gain, [-20 * np.log10(np.ptp(image)) for image in truth])
    assert np.ptp(gain) > 3


def test_a_constant_truth_has_no_range_of_its_own() -> None:
    recon, truth = pair()
    truth[1] = 0.5
    found = lodopab_quality(recon, truth)
    assert np.isnan(found["psnr_lodopab"]).tolist() == [False, True, False]
    assert np.isnan(found["ssim_lodopab"]).tolist() == [False, True, False]
    assert np.isfinite(found["psnr_fr"]).all()


def test_hu_are_attenuation_over_the_maximum() -> None:
    np.testing.assert_allclose(lodopab_values([0.0, 3071.0, -1000.0]), [20 / MU_MAX, 1.0, 0.02 / MU_MAX], rtol=1e-12)
    with pytest.raises(ValueError, match="hu has 1 NaN"):
        lodopab_values([np.nan, 0.0])
