"""Rows that are cut off, continued: most of the error of filtered back-projection goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deft_ct.datasets.phantoms import Ellipse, EllipsePhantom
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, fbp
from deft_ct.operators.ct.extrapolation import continue_rows

OBJECT = EllipsePhantom(
    (
        Ellipse(value=0.02, center_mm=(6.0, -3.0), half_axes_mm=(42.0, 30.0)),
        Ellipse(value=-0.01, center_mm=(-12.0, 3.0), half_axes_mm=(5.0, 5.0)),
    )
)
SCANS = {
    "parallel": ParallelGeometry(image_shape=(60, 60), pixel_mm=1.0, views=90, detectors=60, detector_mm=1.0),
    "flat": FanGeometry(
        image_shape=(60, 60), pixel_mm=1.0, views=120, detectors=60, detector_mm=1.5, source_to_center_mm=200.0,
        source_to_detector_mm=300.0,
    ),
    "curved": FanGeometry(
        image_shape=(60, 60), pixel_mm=1.0, views=120, detectors=60, detector_mm=1.5, source_to_center_mm=200.0,
        source_to_detector_mm=300.0, detector="curved",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCANS)
def test_less_than_a_third_of_the_error_is_left(name: str) -> None:
    geometry = SCANS[name]
    y = OBJECT.sinogram(geometry)[None]
    truth = OBJECT.image((60, 60), 1.0)[0].numpy()
    y_mm, x_mm = np.mgrid[:60, :60] - 29.5
    seen = np.hypot(x_mm, y_mm) < 27

    def error(image: torch.Tensor) -> float:
        return float(np.sqrt(((image[0, 0].numpy() - truth)[seen] ** 2).mean())) / 0.02

    wider, scan = continue_rows(y, geometry)
    assert scan.detectors == 120 and wider.shape == (1, 1, geometry.sinogram_shape[0], 120)
    assert torch.equal(wider[..., 30:90], y) and bool((wider >= 0).all())
    assert torch.allclose(torch.as_tensor(scan.detector_positions[30:90]), torch.as_tensor(geometry.detector_positions))
    cut, whole = error(fbp(y, geometry, "hann")), error(fbp(wider, scan, "hann"))
    assert cut > 0.1 and whole < cut / 3, (cut, whole)


def test_air_stays_air() -> None:
    whole = SCANS["parallel"].replace(detectors=110)
    y = OBJECT.sinogram(whole)[None]
    wider, _ = continue_rows(y, whole)
    assert torch.equal(wider[..., 55:-55], y) and not bool(wider[..., :55].any()) and not bool(wider[..., -55:].any())


def test_a_row_that_rises_towards_its_edge_falls_beyond_it() -> None:
    geometry = SCANS["parallel"]
    y = torch.linspace(0.5, 1.0, 60).expand(1, 1, 90, 60).clone()
    right = continue_rows(y, geometry)[0][0, 0, 0, 90:]
    assert bool((right.diff() <= 0).all()) and float(right[0]) < 1.01 and float(right[-1]) < 0.3
    with pytest.raises(ValueError, match="reach must lie in"):
        continue_rows(y, geometry, 0.0)
