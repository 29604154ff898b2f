"""Metrics against scikit-image, torchmetrics, scipy and closed forms; the body mask on drawn and real patients."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torch_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torch_ssim

from deft_ct.evaluation.metrics import (
    Metrics,
    bias,
    body_mask,
    evaluate,
    mae,
    metric_names,
    psnr,
    relative_residual,
    rmse,
    ssim,
)
from deft_ct.evaluation.statistics import mean_interval

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


def test_relative_residual() -> None:
    y = torch.arange(1.0, 25.0).reshape(2, 1, 3, 4)
    np.testing.assert_allclose(relative_residual(1.1 * y, y), [0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(relative_residual(torch.zeros_like(y), y), [1.0, 1.0])
    with pytest.raises(ValueError, match=r"all zero in items \[1\]"):
        relative_residual(y, torch.stack([y[0], 0 * y[0]]))
    with pytest.raises(ValueError, match="of the same shape"):
        relative_residual(y, y[:, :, :2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, t: psnr(r[:, :-1], t, data_range=2000.0), r"same shape, got \(3, 39, 32\) and \(3, 40, 32\)"),
        (lambda r, t: psnr(r, t, data_range=0.0), "data_range must be a positive number"),
        (lambda r, t: ssim(r, t, data_range=float("nan")), "data_range must be a positive number"),
        (lambda r, t: ssim(r[:, :6], t[:, :6], data_range=2000.0), "at least 7x7 pixels"),
        (lambda r, t: rmse(np.where(r > 0, np.nan, r), t), "recon has .* NaN or infinite values"),
        (lambda r, t: rmse(r, t, mask=np.ones(t.shape)), "mask must be boolean"),
        (lambda r, t: rmse(r[None], t[None]), r"\(Z, H, W\) or \(H, W\)"),
        (lambda r, t: evaluate(r, t, body=np.ones(t.shape[1:], bool)), "mask must be boolean of shape"),
        (lambda r, t: body_mask(t, opening_radius_px=-1), "opening_radius_px must be at least 0"),
        (lambda r, t: body_mask(t[None]), "hu must be"),
    ],
)
def test_bad_input_is_named(change: object, message: str) -> None:
    recon, truth = pair()
    with pytest.raises(ValueError, match=message):
        change(recon, truth)  # type: ignore[operator]


def drawn_patient(*, cut: bool = False) -> tuple[Volume, NDArray[np.bool_]]:
    """An ellipse of tissue with two lungs on a table of a thin curved shell; `cut` removes a part of the chest wall."""
    y, x = np.mgrid[:128, :128].astype(np.float64)
    body = ((x - 64) / 50) ** 2 + ((y - 56) / 36) ** 2 < 1
    lungs = np.zeros_like(body)
    for center in (42, 86):
        lungs |= ((x - center) / 15) ** 2 + ((y - 52) / 20) ** 2 < 1
    table = np.abs(np.hypot(x - 64, y + 60) - 158) < 1.2
    hu = np.full(body.shape, -1000.0)
    hu[table] = 200.0
    hu[body] = 40.0
    hu[lungs] = -860.0
    if cut:  # as where the circular field of view ends inside the patient
        hu[:, :30] = -1024.0
        body = body & (x >= 30)
    return hu, body


def test_body_mask_takes_lungs_and_leaves_the_table() -> None:
    hu, body = drawn_patient()
    rng = np.random.default_rng(0)
    mask = body_mask(np.stack([hu, hu + rng.normal(0, 30, hu.shape)]))
    assert mask.shape == (2, 128, 128) and mask.dtype == np.bool_
    np.testing.assert_array_equal(mask[0], body)
    assert (mask[1] ^ body).sum() < 0.005 * body.sum()


def test_body_mask_keeps_a_lung_that_is_cut_open() -> None:
    hu, body = drawn_patient(cut=True)
    mask = body_mask(hu)
    assert (mask ^ body).sum() < 0.02 * body.sum()


def test_body_mask_of_a_body_at_the_edge_and_of_air() -> None:
    hu, body = drawn_patient()
    mask = body_mask(hu[:, 40:])  # the crop runs through a lung
    np.testing.assert_array_equal(mask, body[:, 40:])
    assert not body_mask(np.full((2, 32, 32), -1000.0)).any()


@pytest.mark.data
def test_body_mask_of_real_slices(data_root: Path) -> None:
    with h5py.File(data_root / "ct256" / "val.h5") as file:
        slices = np.concatenate([group["hu"][::12] for group in file.values()])
    mask = body_mask(slices)
    tissue = (slices > -200) & (slices < 100)
    covered = [inside[soft].mean() for inside, soft in zip(mask, tissue, strict=True)]
    assert np.median(covered) > 0.98 and min(covered) > 0.3  # the arms outweigh the head in one slice
    for hu, inside in zip(slices, mask, strict=True):
        assert 0.05 < inside.mean() < 0.7
        # What is left outside is mostly air: table and arms are small.
        assert (hu[~inside] < -500).mean() > 0.85


def test_intervals_agree_with_scipy() -> None:
    values = np.random.default_rng(0).normal(30.0, 2.0, 40)
    t = mean_interval(values, method="t", confidence=0.9)
    low, high = stats.t.interval(0.9, 39, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([t.mean, t.low, t.high], [values.mean(), low, high])
    ours = mean_interval(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], atol=0.03)
    assert ours == mean_interval(values) and ours != mean_interval(values, seed=1)
    assert ours.n == 40


def test_intervals_at_the_edge() -> None:
    alone = mean_interval([3.0])
    assert alone.mean == 3.0 and np.isnan(alone.low) and alone.n == 1
    assert mean_interval([1.0, np.nan, 3.0]).n == 2
    assert mean_interval([1.0, np.inf]).mean == np.inf
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([np.nan])
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        mean_interval([1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match="'bootstrap' or 't'"):
        mean_interval([1.0, 2.0], method="z")


def test_evaluate() -> None:
    truth = np.stack([drawn_patient()[0], np.full((128, 128), -1000.0)])
    recon = truth + np.random.default_rng(0).normal(10.0, 40.0, truth.shape)
    metrics = evaluate(recon, truth)
    assert len(metrics) == 2 and metrics.data_range_hu == 2000.0
    mask = body_mask(truth)
    np.testing.assert_allclose(metrics.rmse_hu, rmse(recon, truth, mask=mask))
    np.testing.assert_allclose(metrics.psnr, psnr(recon, truth, data_range=2000.0))
    np.testing.assert_allclose(metrics.psnr_body[0], 20 * np.log10(2000.0 / metrics.rmse_hu[0]))
    assert np.isnan(metrics.bias_hu[1])
    assert metrics.bias_hu[0] == pytest.approx(10.0, abs=1.5)
    summary = metrics.summary()
    assert tuple(summary) == metric_names() and summary["psnr"].n == 2 and summary["mae_hu"].n == 1
    with pytest.raises(ValueError, match="one value per slice"):
        Metrics(**{**{name: np.zeros(2) for name in metric_names()}, "psnr": np.zeros(3)}, data_range_hu=1.0)
