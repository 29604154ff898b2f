"""The descriptor of a scan against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deft_ct.methods.deft import scan_embedding
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform, features

FULL = ParallelGeometry.for_image((16, 16), 1.0, 60)


def described(geometry: ParallelGeometry | FanGeometry, photons: list[float] | None = None) -> np.ndarray:
    y = torch.rand((len(photons or [0]), 1, *geometry.sinogram_shape), generator=torch.Generator().manual_seed(0))
    weights = None if photons is None else torch.tensor(photons).reshape(-1, 1, 1, 1) * torch.exp(-y)
    return np.asarray(RayTransform(geometry).features(y, weights))


def test_lengths() -> None:
    assert (features.SCAN_FEATURES, features.DIRECTION_FEATURES) == (4, 2)
    assert (scan_embedding.SCAN_FEATURES, scan_embedding.DIRECTION_FEATURES) == (4, 2)
    assert described(FULL, [1e5, 1e5]).shape == (2, 6)


def test_sixty_full_views_at_1e5_photons_are_zero() -> None:
    np.testing.assert_allclose(described(FULL, [1e5]), 0, atol=1e-6)


@pytest.mark.parametrize("views", [15, 30, 120, 480])
def test_views(views: int) -> None:
    assert described(FULL.replace(views=views))[0, 0] == pytest.approx(math.log2(views / 60))


def test_noise_is_the_log_of_the_photons_within_two() -> None:
    photons = [1e2, 1e3, 5e3, 1e5, 3e6, 1e7, 1e9]
    expected = [-2, -2, math.log10(0.05), 0, math.log10(30), 2, 2]
    np.testing.assert_allclose(described(FULL, photons)[:, 2], expected, atol=1e-5)
    assert described(FULL)[0, 2] == pytest.approx(1)  # noise-free counts as 1e6


@pytest.mark.parametrize("degrees", [90, 120, 150])
@pytest.mark.parametrize("start", [0.0, 30.0, -45.0, 100.0])
def test_a_limited_arc_has_a_size_and_a_direction(degrees: float, start: float) -> None:
    arc = FULL.replace(views=60, start_angle=math.radians(start), angular_range=math.radians(degrees))
    missing = 2 * (1 - degrees / 180)
    # Views of the angles in the gap would measure the missing lines; the last view is a step before the end.
    gap = math.radians(start + degrees + (180 - degrees) / 2 - 0.5 * degrees / 60)
    expected = [0, missing, 1, 0, missing * math.cos(2 * gap), missing * math.sin(2 * gap)]
    np.testing.assert_allclose(described(arc)[0], expected, atol=0.02)


def test_half_the_opening_of_a_fan() -> None:
    fan = FanGeometry(
        image_shape=(16, 16), pixel_mm=1.0, views=60, angular_range=2 * math.pi, detectors=33, detector_mm=2.0,
        source_to_center_mm=40, source_to_detector_mm=64,
    )  # fmt: skip
    np.testing.assert_allclose(described(fan)[0], [0, 0, 1, math.atan(16 * 2.0 / 64), 0, 0], atol=1e-6)
