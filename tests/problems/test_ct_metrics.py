"""Metrics in HU, and the body mask on drawn and real patients."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from deft_ct.evaluation.metrics import psnr, rmse
from deft_ct.problems.ct_metrics import (
    CT_METRICS,
    WINDOWS_HU,
    CTMetrics,
    body_mask,
    evaluate,
    measure_ct,
    metric_names,
)
from deft_ct.report.figures import LUNG, SOFT_TISSUE

Volume = NDArray[np.float64]


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
        CTMetrics(**{**{name: np.zeros(2) for name in metric_names()}, "psnr": np.zeros(3)}, data_range_hu=1.0)


def test_bad_input_is_named() -> None:
    hu = np.stack([drawn_patient()[0]] * 2)
    with pytest.raises(ValueError, match="mask must be boolean of shape"):
        evaluate(hu, hu, body=np.ones(hu.shape[1:], bool))
    with pytest.raises(ValueError, match="of the same shape"):
        evaluate(hu[:1], hu)
    with pytest.raises(ValueError, match="opening_radius_px must be at least 0"):
        body_mask(hu, opening_radius_px=-1)
    with pytest.raises(ValueError, match="hu must be"):
        body_mask(hu[None])


def test_every_metric_of_ct_is_measured_and_few_are_in_the_table() -> None:
    truth = np.stack([drawn_patient()[0], np.full((128, 128), -1000.0)])
    recon = truth + np.random.default_rng(0).normal(10.0, 40.0, truth.shape)
    body = body_mask(truth)
    found = measure_ct(recon, truth, body, data_range_hu=2000.0, pixel_mm=[2.0, 1.0])
    assert list(found) == [metric.name for metric in CT_METRICS] and len({m.key for m in CT_METRICS}) == len(CT_METRICS)
    assert [metric.name for metric in CT_METRICS if metric.in_table] == ["psnr", "ssim", "rmse"]
    for name, values in found.items():
        assert values.shape == (2,) and np.isfinite(values[0]), name
    assert found["noise"][0] == pytest.approx(40.0, rel=0.1) and np.isnan(found["noise"][1])
    finer = measure_ct(recon, truth, body, data_range_hu=2000.0, pixel_mm=1.0)
    assert 2 * found["noise_frequency"][0] == pytest.approx(finer["noise_frequency"][0])
    assert 0.2 < finer["noise_frequency"][0] < 0.32  # 0.28 for white noise; there are few squares
    assert found["edge_slope"][0] == pytest.approx(1.0, abs=0.02)


def test_errors_outside_a_window_do_not_count_there() -> None:
    truth = drawn_patient()[0][None]
    body = body_mask(truth)
    lungs = truth[0] == -860.0
    recon = truth.copy()
    recon[0][lungs] += 100.0  # black in the soft-tissue window before and after
    found = measure_ct(recon, truth, body, data_range_hu=2000.0, pixel_mm=1.0)
    share = np.sqrt(lungs.sum() / body.sum())
    assert found["rmse_soft"][0] == 0 and found["rmse_bone"][0] == 0
    assert found["rmse_lung"][0] == found["rmse"][0] == pytest.approx(100.0 * share)


def test_the_windows_are_those_of_the_figures() -> None:
    assert WINDOWS_HU["lung"] == LUNG.limits and WINDOWS_HU["soft"] == SOFT_TISSUE.limits
