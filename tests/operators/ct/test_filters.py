"""Filters and back-projection against closed forms, NumPy and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch
from scipy.sparse import csr_array

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform, fbp, fdk
from deft_ct.operators.ct.backprojection import backprojection_matrix
from deft_ct.operators.ct.filters import apply_filter, filter_names, padded_length, ramp_response


def window(name: str, points: int) -> np.ndarray:
    """The window at ``points + 1`` frequencies from zero to its end, from SciPy or the definition."""
    if name in ("hamming", "hann"):
        return scipy.signal.get_window(name, 2 * points + 1, fftbins=False)[points:]
    at = np.arange(points + 1) / points
    return {
        "ram-lak": np.ones(points + 1),
        "cosine": np.cos(0.5 * math.pi * at),
        "shepp-logan": np.sin(0.5 * math.pi * np.maximum(at, 1e-9)) / (0.5 * math.pi * np.maximum(at, 1e-9)),
    }[name]


@pytest.mark.parametrize("name", filter_names())
@pytest.mark.parametrize("cutoff", [1.0, 0.5, 0.25])
def test_windows_are_those_of_scipy_up_to_the_cutoff_and_end_there(name: str, cutoff: float) -> None:
    detectors, spacing = 100, 0.7
    half = padded_length(detectors) // 2
    assert half == 128
    points = int(cutoff * half)
    expected = np.zeros(half + 1)
    expected[: points + 1] = window(name, points)
    ramp = ramp_response(detectors, spacing, "ram-lak", 1.0)
    np.testing.assert_allclose(ramp_response(detectors, spacing, name, cutoff), ramp * expected, atol=1e-12)


@pytest.mark.parametrize(("detectors", "length"), [(1, 64), (32, 64), (33, 128), (64, 128), (65, 256)])
def test_rows_are_padded_to_twice_their_length_at_least(detectors: int, length: int) -> None:
    assert padded_length(detectors) == length


@pytest.mark.parametrize("detectors", [1, 2, 31, 32, 41, 64])
@pytest.mark.parametrize("equiangular", [False, True])
def test_filtering_is_the_convolution_with_the_sampled_ramp(detectors: int, equiangular: bool) -> None:
    # The widest detector that there can be: an element further, the sine of the equiangular kernel would vanish.
    spacing = math.pi / detectors if equiangular else 0.8
    n = np.arange(1 - detectors, detectors)
    kernel = np.where(n % 2 == 0, 0.0, -1 / (math.pi * np.where(n == 0, 1, n) * spacing) ** 2)
    kernel[n == 0] = 1 / (4 * spacing**2)
    if equiangular:
        kernel[n != 0] *= (n[n != 0] * spacing / np.sin(n[n != 0] * spacing)) ** 2
    rows = np.random.default_rng(0).normal(size=(3, detectors))
    expected = np.stack([spacing * np.convolve(row, kernel)[detectors - 1 : 2 * detectors - 1] for row in rows])
    response = torch.from_numpy(ramp_response(detectors, spacing, "ram-lak", 1.0, equiangular=equiangular))
    np.testing.assert_allclose(apply_filter(torch.from_numpy(rows), response).numpy(), expected, rtol=1e-9, atol=1e-9)


def test_no_rows_stay_no_rows() -> None:
    response = torch.from_numpy(ramp_response(8, 1.0, "hann", 1.0))
    assert apply_filter(torch.zeros(0, 8), response).shape == (0, 8)


@pytest.mark.parametrize("frequency", [0.55, 0.7, 0.9])
def test_reconstructions_hold_nothing_above_the_cutoff(frequency: float) -> None:
    planar = ParallelGeometry.for_image((33, 33), 1.0, 12)
    cone = ConeGeometry.for_image((1, 33, 33), 1.0, 12)
    for method, geometry in ((fbp, planar), (fdk, cone)):
        *_, detectors = geometry.sinogram_shape
        row = torch.cos(math.pi * frequency * (torch.arange(detectors) - (detectors - 1) / 2)).double()
        y = (row * torch.hann_window(detectors, periodic=False, dtype=torch.float64)).expand(geometry.sinogram_shape)
        center = [float(method(y, geometry, "ram-lak", c).reshape(33, 33)[16, 16]) for c in (1.0, 0.3)]
        assert abs(center[1]) < 0.05 * abs(center[0])


def places(geometry: ParallelGeometry | FanGeometry, angle: float, x: float, y: float) -> tuple[float, float]:
    """Detector index and weight of a point: the angle at the source is measured, not derived."""
    middle = (geometry.detectors - 1) / 2
    if isinstance(geometry, ParallelGeometry):
        u, weight = x * math.cos(angle) + y * math.sin(angle) + geometry.axis_offset_mm, 1.0
    else:
        far, near = geometry.source_to_detector_mm, geometry.source_to_center_mm
        source = np.array([near * math.sin(angle), -near * math.cos(angle)])
        source -= geometry.axis_offset_mm * np.array([math.cos(angle), math.sin(angle)])
        beam = np.array([-math.sin(angle), math.cos(angle)])
        gap = np.array([x, y]) - source
        gamma = math.atan2(beam[1] * gap[0] - beam[0] * gap[1], float(gap @ beam))
        length = float(np.hypot(*gap))
        flat = geometry.detector == "flat"
        u = far * math.tan(gamma) if flat else far * gamma
        weight = (far / (length * math.cos(gamma))) ** 2 if flat else length**-2
    return (u - geometry.detector_offset_mm) / geometry.detector_mm + middle, weight


@pytest.mark.parametrize("kind", ["parallel", "flat", "curved"])
def test_back_projection_interpolates_to_the_last_detector_element(kind: str) -> None:
    common = {
        "image_shape": (7, 5), "pixel_mm": (1.2, 0.9), "angles": [0.0, 0.7, 2.0, 4.4], "detectors": 6,
        "detector_mm": 1.1, "detector_offset_mm": 0.3, "axis_offset_mm": 0.4,
    }  # fmt: skip
    geometry = (
        ParallelGeometry(**common)
        if kind == "parallel"
        else FanGeometry(**common, source_to_center_mm=20.0, source_to_detector_mm=31.0, detector=kind)
    )
    q = np.random.default_rng(1).uniform(1, 2, size=(4, 6))
    expected, edges = np.zeros((7, 5)), set()
    for view, angle in enumerate(common["angles"]):
        for row in range(7):
            for column in range(5):
                at, weight = places(geometry, angle, (column - 2) * 0.9, (3 - row) * 1.2)
                edges.add(math.floor(at))
                expected[row, column] += weight * np.interp(at, np.arange(-1, 7), [0, *q[view], 0], left=0, right=0)
    assert {-1, 0, 4, 5} <= edges  # points beside, on and within both ends of the detector
    for part in (slice(None), slice(0, 2)):
        csr = backprojection_matrix(geometry, part, np.float64)
        dense = csr_array((csr.data, csr.indices, csr.indptr), shape=csr.shape)
        if part == slice(None):
            np.testing.assert_allclose((dense @ q.ravel()).reshape(7, 5), expected, rtol=1e-12)
        else:
            rest = backprojection_matrix(geometry, slice(2, None), np.float64)
            other = csr_array((rest.data, rest.indices, rest.indptr), shape=rest.shape)
            both = dense @ q[:2].ravel() + other @ q[2:].ravel()
            np.testing.assert_allclose(both.reshape(7, 5), expected, rtol=1e-12)


def test_quick_reconstruction_uses_the_hann_filter() -> None:
    geometry = ParallelGeometry.for_image((16, 16), 1.0, 8)
    y = torch.rand(1, 1, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(RayTransform(geometry).first_guess(y), fbp(y, geometry, "hann"))
