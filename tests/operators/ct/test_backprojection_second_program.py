"""Filtered back-projection of planar scans and of cones against sums over views in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, backprojection, fbp, fdk
from deft_ct.operators.ct.filters import ramp_response
from deft_ct.operators.ct.helical_fbp import helical_fbp
from deft_ct.operators.ct.redundancy import one_sided_padding, ray_weights

PLANE: dict[str, Any] = {
    "image_shape": (9, 7), "pixel_mm": (1.3, 1.0), "views": 11, "detectors": 12, "detector_mm": 1.1,
    "detector_offset_mm": 0.4, "axis_offset_mm": -0.3,
}  # fmt: skip
DIVERGENT: dict[str, Any] = {"source_to_center_mm": 40.0, "source_to_detector_mm": 65.0}
SCANS = {
    "parallel": ParallelGeometry(**PLANE),
    "flat": FanGeometry(**PLANE | {"detector_mm": 1.7}, **DIVERGENT),
    "curved": FanGeometry(**PLANE | {"detector_mm": 1.7}, **DIVERGENT, detector="curved"),
    "half a parallel beam": ParallelGeometry(
        **PLANE | {"angular_range": 2 * math.pi, "views": 20, "detector_offset_mm": 3.0}
    ),
    "half a flat fan": FanGeometry(**PLANE | {"detector_mm": 1.7, "detector_offset_mm": -5.0}, **DIVERGENT),
}
NAMES = pytest.mark.parametrize("name", SCANS)


def filtered(rows: np.ndarray, response: np.ndarray) -> np.ndarray:
    length = 2 * (len(response) - 1)
    return np.fft.irfft(np.fft.rfft(rows, n=length) * response, n=length)[..., : rows.shape[-1]]


def interpolated(row: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear between elements, falling to zero one element beyond the ends."""
    padded = np.concatenate([[0.0], row, [0.0]])
    return np.interp(at + 1, np.arange(len(padded)), padded, left=0.0, right=0.0)


def second_program(y: np.ndarray, scan: Any, name: str, cutoff: float) -> np.ndarray:
    """Of ``(views, detectors)``."""
    before, after = one_sided_padding(scan)
    count = scan.detectors + before + after
    first = scan.detector_positions[0] - before * scan.detector_mm
    spacing, weights = scan.detector_mm, ray_weights(scan)
    fan = isinstance(scan, FanGeometry)
    curved = fan and scan.detector == "curved"
    if fan:
        gamma = scan.fan_angles
        foot = scan.source_to_center_mm * np.cos(gamma) + scan.axis_offset_mm * np.sin(gamma)
        weights = weights * (foot if curved else foot / scan.source_to_detector_mm)
        spacing = spacing / scan.source_to_detector_mm if curved else spacing
    rows = np.pad(y * weights, ((0, 0), (before, after)))
    rows = filtered(rows, ramp_response(count, spacing, name, cutoff, equiangular=curved))
    (height, width), (dy, dx) = scan.image_shape, scan.pixel_rc
    px = (np.arange(width) - (width - 1) / 2) * dx
    py = (((height - 1) / 2 - np.arange(height)) * dy)[:, None]
    total = np.zeros(scan.image_shape)
    for row, angle in zip(rows, scan.angle_array, strict=True):
        across = px * math.cos(angle) + py * math.sin(angle) + scan.axis_offset_mm
        depth = -px * math.sin(angle) + py * math.cos(angle)
        share: Any = 1.0
        place = across
        if fan:
            depth = depth + scan.source_to_center_mm
            if curved:
                place, share = 65.0 * np.arctan2(across, depth), 1 / (across**2 + depth**2)
            else:
                place, share = 65.0 * across / depth, (65.0 / depth) ** 2
        total += share * interpolated(row, (place - first) / scan.detector_mm)
    return total


@NAMES
@pytest.mark.parametrize(("filter_name", "cutoff"), [("ram-lak", 1.0), ("hann", 0.7)])
@pytest.mark.parametrize("kernel", [False, True])
def test_planar_images(
    name: str, filter_name: str, cutoff: float, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the matrix, and with the kernel that takes its place where it is large."""
    if kernel:
        monkeypatch.setattr(backprojection, "_CACHED_BYTES", 0)
    scan = SCANS[name]
    y = torch.rand(2, 1, *scan.sinogram_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = [second_program(one[0], scan, filter_name, cutoff) for one in y.numpy()]
    np.testing.assert_allclose(fbp(y, scan, filter_name, cutoff)[:, 0], expected, atol=1e-9)
    assert (one_sided_padding(scan) != (0, 0)) == name.startswith("half")


CONE: dict[str, Any] = {
    "image_shape": (5, 8, 6), "pixel_mm": (1.5, 1.3, 1.0), "views": 9, "detectors": (6, 11), "detector_mm": (2.0, 1.9),
    "detector_offset_mm": (0.8, 0.5), "axis_offset_mm": -0.4,
}  # fmt: skip
CONES = {
    "full": ConeGeometry(**CONE, **DIVERGENT),
    "short": ConeGeometry(**CONE | {"angular_range": 4.1}, **DIVERGENT),
    "half": ConeGeometry(**CONE | {"detector_offset_mm": (0.8, 5.5)}, **DIVERGENT),
    "one row": ConeGeometry(**CONE | {"detectors": (1, 11)}, **DIVERGENT),
}


@pytest.mark.parametrize("name", CONES)
@pytest.mark.parametrize("differentiated", [False, True])
def test_volumes(name: str, differentiated: bool) -> None:
    scan = CONES[name]
    y = torch.rand(2, *scan.sinogram_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fan = scan.middle_fan()
    before, after = one_sided_padding(fan)
    (n_v, n_u), (dv, du) = scan.detectors, scan.detector_vu
    u = (np.arange(n_u) - (n_u - 1) / 2) * du + scan.detector_offset_mm[1]
    v = ((np.arange(n_v) - (n_v - 1) / 2) * dv + scan.detector_offset_mm[0])[:, None]
    # Distance of the source from the foot of the axis on each ray, over that from the detector along the middle ray.
    length = np.sqrt(65.0**2 + u**2 + v**2)
    foot = (40.0 * 65.0 + scan.axis_offset_mm * u) / length / 65.0
    rows = np.pad(y.numpy() * (ray_weights(fan)[:, None] * foot), ((0, 0), (0, 0), (0, 0), (before, after)))
    rows = filtered(rows, ramp_response(n_u + before + after, du, "cosine", 0.9))
    (slices, height, width), (dz, dy, dx) = scan.image_shape, scan.voxel_zyx
    z, row, column = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (slices, height, width)), indexing="ij")
    z, py, px = z * dz, -row * dy, column * dx
    expected = np.zeros((2, *scan.image_shape))
    for view, angle in enumerate(scan.angle_array):
        depth = 40.0 - px * math.sin(angle) + py * math.cos(angle)
        across = px * math.cos(angle) + py * math.sin(angle) + scan.axis_offset_mm
        at_u = (across * 65.0 / depth - u[0]) / du + before
        at_v = (z * 65.0 / depth - v[0]) / dv
        for k in range(2):
            for r in range(n_v):
                hat = np.clip(1 - np.abs(at_v - r), 0, None) if n_v > 1 else 1.0
                expected[k] += hat * interpolated(rows[k, view, r], at_u) * (65.0 / depth) ** 2
    found = fdk(y.requires_grad_(differentiated), scan, "cosine", 0.9).detach()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert ((before, after) != (0, 0)) == (name == "half")


@pytest.mark.parametrize("reconstruct", [fbp, fdk, helical_fbp])
def test_the_filter_is_looked_at_before_anything_else(reconstruct: Any) -> None:
    for name, cutoff, message in (
        ("ramlak", 1.0, "unknown filter 'ramlak'"),
        ("hann", 1.5, r"cutoff must be in \(0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            reconstruct(None, *((None,) if reconstruct is not helical_fbp else (None, None)), name, cutoff)
