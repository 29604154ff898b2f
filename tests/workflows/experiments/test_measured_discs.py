"""Measured discs of the challenge, on files made in its layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from deft_ct.operators.ct import RayTransform
from deft_ct.workflows.experiments.measured_discs import (
    agreement_inside,
    read_disc_scan,
    read_shipped_disc,
    relative_residual,
)


def _scan_file(path: Path) -> Path:
    parameters = {
        "angles": np.arange(0, 360, 30.0), "numDetectorsPost": 40.0, "pixelSizePost": 0.2,
        "effectivePixelSizePost": 0.148, "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74,
        "distanceUnit": "mm",
    }  # fmt: skip
    scipy.io.savemat(path, {"CtDataFull": {"sinogram": np.zeros((12, 40), np.float32), "parameters": parameters}})
    return path


def test_a_coarser_image_keeps_the_field_of_view(tmp_path: Path) -> None:
    fine = read_disc_scan(_scan_file(tmp_path / "disc.mat"), 512).geometry
    coarse = read_disc_scan(tmp_path / "disc.mat", 64).geometry
    assert fine.image_shape == (512, 512) and coarse.image_shape == (64, 64)
    assert fine.pixel_rc[0] == pytest.approx(0.148) and coarse.pixel_rc[0] == pytest.approx(8 * 0.148)


def test_the_shipped_image_is_averaged_and_in_attenuation(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((512, 512))
    scipy.io.savemat(tmp_path / "fbp.mat", {"reconFullFbp": image})
    found = read_shipped_disc(tmp_path / "fbp.mat", 256, 0.3)
    assert found.dtype == np.float32 and found.shape == (256, 256)
    # Stored in units of one over its own pixel of 0.15 mm.
    assert found[3, 5] == pytest.approx(image[6:8, 10:12].mean() / 0.15, rel=1e-5)


def test_agreement_is_judged_inside_the_object() -> None:
    rows, columns = np.mgrid[:40, :40] - 19.5
    disc = np.hypot(rows, columns) < 12
    # Two levels inside, so that there is something to correlate with.
    reference = (disc * (0.04 + 0.01 * (rows > 0))).astype(np.float32)
    same = agreement_inside(reference, reference)
    assert same == pytest.approx(
        {"relative error": 0, "mean / mean of the reference": 1, "correlation": 1, "challenge score": 1}
    )
    brighter = agreement_inside((1.1 * reference).astype(np.float32), reference)
    assert brighter["relative error"] == pytest.approx(0.1, rel=1e-4)
    assert brighter["mean / mean of the reference"] == pytest.approx(1.1, rel=1e-5)
    outside = agreement_inside(np.where(disc, reference, 0.005).astype(np.float32), reference)
    assert outside["relative error"] == 0


def test_the_residual_is_relative_to_the_data(tmp_path: Path) -> None:
    geometry = read_disc_scan(_scan_file(tmp_path / "disc.mat"), 32).geometry
    image = np.full((32, 32), 0.02, np.float32)
    y = RayTransform(geometry)(torch.from_numpy(image))
    assert relative_residual(image, y, geometry) == pytest.approx(0, abs=1e-6)
    assert relative_residual(0.75 * image, y, geometry) == pytest.approx(0.25, rel=1e-4)
