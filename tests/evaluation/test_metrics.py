"""Metrics against scikit-image, torchmetrics and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torch_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torch_ssim

from deft_ct.evaluation.metrics import bias, mae, psnr, rmse, ssim

Volume = NDArray[np.float64]


def pair(seed: int = 0, shape: tuple[int, ...] = (3, 40, 32)) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.0, 300.0, shape).cumsum(axis=-1) / 4
    return truth + rng.normal(5.0, 60.0, shape), truth


@pytest.mark.parametrize("data_range", [1.0, 2000.0, 4095.0])
def test_psnr_agrees_with_scikit_image_and_torchmetrics(data_range: float) -> None:
    recon, truth = pair()
    ours = psnr(recon, truth, data_range=data_range)
    theirs = [peak_signal_noise_ratio(t, r, data_range=data_range) for r, t in zip(recon, truth, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    torchs = [
        float(torch_psnr(torch.from_numpy(r)[None, None], torch.from_numpy(t)[None, None], data_range=data_range))
        for r, t in zip(recon, truth, strict=True)
    ]
    np.testing.assert_allclose(ours, torchs, rtol=1e-5)


@given(range_factor=st.floats(0.1, 100.0), scale=st.floats(0.01, 100.0), seed=st.integers(0, 99))
def test_psnr_depends_on_the_ratio_of_range_and_error(range_factor: float, scale: float, seed: int) -> None:
    recon, truth = pair(seed, (1, 16, 16))
    base = psnr(recon, truth, data_range=2000.0)
    np.testing.assert_allclose(psnr(scale * recon, scale * truth, data_range=scale * 2000.0), base, atol=1e-9)
    wider = psnr(recon, truth, data_range=range_factor * 2000.0)
    np.testing.assert_allclose(wider - base, 20 * np.log10(range_factor), atol=1e-9)


def test_psnr_closed_form_and_special_values() -> None:
    truth = np.zeros((2, 16, 16))
    recon = truth.copy()
    recon[0] += 20.0
    np.testing.assert_allclose(psnr(recon, truth, data_range=2000.0), [40.0, np.inf])
    mask = np.ones(truth.shape, dtype=bool)
    mask[1] = False
    np.testing.assert_allclose(psnr(recon, truth, data_range=2000.0, mask=mask), [40.0, np.nan])


def test_ssim_agrees_with_scikit_image_and_torchmetrics() -> None:
    recon, truth = pair(shape=(2, 48, 48))
    ours = ssim(recon, truth, data_range=2000.0)
    theirs = [structural_similarity(t, r, data_range=2000.0) for r, t in zip(recon, truth, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    gaussian = ssim(recon, truth, data_range=2000.0, gaussian_weights=True)
    assert np.abs(gaussian - ours).min() > 1e-4  # another convention, another number
    for ours_gaussian, r, t in zip(gaussian, recon, truth, strict=True):
        images = (torch.from_numpy(r)[None, None], torch.from_numpy(t)[None, None])
        _, full = torch_ssim(*images, data_range=2000.0, return_full_image=True)
        # torchmetrics averages over a reflected border as well, scikit-image over whole windows only.
        np.testing.assert_allclose(ours_gaussian, full[..., 5:-5, 5:-5].mean(), rtol=1e-6)


def test_errors_in_a_mask_agree_with_numpy() -> None:
    recon, truth = pair()
    mask = np.random.default_rng(1).random(truth.shape) < 0.3
    for z in range(len(truth)):
        error = (recon - truth)[z][mask[z]]
        np.testing.assert_allclose(rmse(recon, truth, mask=mask)[z], np.sqrt(np.mean(error**2)))
        np.testing.assert_allclose(mae(recon, truth, mask=mask)[z], np.mean(np.abs(error)))
        np.testing.assert_allclose(bias(recon, truth, mask=mask)[z], np.mean(error))


def test_inputs_of_any_kind_give_the_same() -> None:
    recon, truth = (a.astype(np.float32) for a in pair())
    expected = rmse(recon, truth)
    tensors = (torch.from_numpy(recon).requires_grad_(), torch.from_numpy(truth))
    np.testing.assert_array_equal(rmse(*tensors), expected)
    np.testing.assert_array_equal(rmse(recon[0], truth[0]), expected[:1])
    np.testing.assert_array_equal(rmse(np.zeros((8, 8), np.int16), np.full((8, 8), -1024, np.int16)), [1024.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, t: psnr(r[:, :-1], t, data_range=2000.0), r"same shape, got \(3, 39, 32\) and \(3, 40, 32\)"),
        (lambda r, t: psnr(r, t, data_range=0.0), "data_range must be a positive number"),
        (lambda r, t: ssim(r, t, data_range=float("nan")), "data_range must be a positive number"),
        (lambda r, t: ssim(r[:, :6], t[:, :6], data_range=2000.0), "at least 7x7 pixels"),
        (lambda r, t: rmse(np.where(r > 0, np.nan, r), t), "recon has .* NaN or infinite values"),
        (lambda r, t: rmse(r, t, mask=np.ones(t.shape)), "mask must be boolean"),
        (lambda r, t: rmse(r[0, 0], t[0, 0]), r"\(N, \*image_shape\) or \(H, W\)"),
        (lambda r, t: rmse(r, t, mask=np.ones(t.shape[1:], bool)), "mask must be boolean of shape"),
        (lambda r, t: ssim(r[None, None], t[None, None], data_range=1.0), r"ssim needs images \(N, H, W\)"),
    ],
)
def test_bad_input_is_named(change: object, message: str) -> None:
    recon, truth = pair()
    with pytest.raises(ValueError, match=message):
        change(recon, truth)  # type: ignore[operator]


def test_photographs_and_points_are_images_too() -> None:
    recon, truth = pair(shape=(2, 3, 24, 16))
    ours = ssim(recon, truth, data_range=2000.0)
    theirs = [structural_similarity(t, r, data_range=2000.0, channel_axis=0) for r, t in zip(recon, truth, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_allclose(psnr(recon, truth, data_range=2.0), 20 * np.log10(2.0 / rmse(recon, truth)))
    points = np.zeros((1, 5, 3))
    np.testing.assert_allclose(rmse(points + 2.0, points), [2.0])
