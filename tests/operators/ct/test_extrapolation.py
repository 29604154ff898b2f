"""Rows that are cut off, continued: most of the error of filtered back-projection goes."""

from __future__ import annotations

import math

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


def _continued(row: np.ndarray, count: int) -> list[float]:
    """The readings beyond the last of a row: Hsieh's cylinder, by a line fitted to the squares at the edge."""
    detectors = len(row)
    used = min(detectors, max(4, math.ceil(0.08 * detectors)))
    x = 1 - 2 * np.arange(used)[::-1] / detectors  # 1 at the edge, in half widths of the detector
    slope, intercept = np.polyfit(x, np.maximum(row[-used:], 0) ** 2, 1)
    edge = max(slope + intercept, 0.0)
    radius2 = 1 + edge / max(-slope / 2, np.finfo(float).eps)
    radius2 = min(radius2, (1 + 2 * max(1, count - 4) / detectors) ** 2)
    density = edge / max(radius2 - 1, np.finfo(float).eps)
    return [max(density * (radius2 - (1 + 2 * k / detectors) ** 2), 0) ** 0.5 for k in range(1, count + 1)]


@pytest.mark.parametrize(
    ("detectors", "reach", "count"), [(3, 0.5, 2), (20, 1.0, 19), (20, 0.1, 2), (60, 0.5, 30), (101, 0.07, 8)]
)
def test_the_continuation_is_that_of_a_second_program(detectors: int, reach: float, count: int) -> None:
    geometry = SCANS["parallel"].replace(views=6, detectors=detectors)
    rng = np.random.default_rng(detectors)
    rows = np.sort(rng.uniform(0.1, 2, (6, detectors)), 1)[:, ::-1].copy()  # they fall towards the right edge
    rows[1], rows[2] = rng.uniform(-1, 1, detectors), 1 / np.arange(1, detectors + 1)
    rows[3, -2:] = -0.5
    wider, scan = continue_rows(torch.from_numpy(rows)[None], geometry, reach)
    assert scan.detectors == detectors + 2 * count
    expected = [[*_continued(row[::-1], count)[::-1], *row, *_continued(row, count)] for row in rows]
    np.testing.assert_allclose(wider[0], expected, atol=1e-9)


def test_a_curved_detector_stops_short_of_the_source() -> None:
    """At 80 degrees on either side; a flat one has no such end."""
    curved = SCANS["curved"].replace(detector_mm=12.0, detector_offset_mm=5.0)
    y = torch.ones(1, 120, 60)
    most = math.floor((math.radians(80) * 300 - (29.5 * 12 + 5)) / 12)
    assert 0 < most < 30
    assert continue_rows(y, curved)[1].detectors == 60 + 2 * most
    assert continue_rows(y, curved.replace(detector="flat"))[1].detectors == 120
    round_the_source = curved.replace(detector_mm=14.3, detector_offset_mm=0.0)
    wider, scan = continue_rows(y, round_the_source)
    assert torch.equal(wider, y) and scan.detectors == 60
    for reach in (-0.1, 0.0, 1.01):
        with pytest.raises(ValueError, match=f"reach must lie in .*, got {reach}"):
            continue_rows(y, curved, reach)
