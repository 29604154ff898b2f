"""FDK with a detector that is cut off on one side, as cone-beam scanners shift it for a larger field of view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deft_ct.operators.ct import ConeGeometry, fbp, fdk

# (centre x y z, radius in mm, attenuation in 1/mm)
BALLS = (((4.0, -6.0, 3.0), 13.0, 0.02), ((-12.0, 7.0, -4.0), 6.0, 0.01))


def line_integrals(geometry: ConeGeometry) -> torch.Tensor:
    rays = geometry.rays()
    total = np.zeros(geometry.sinogram_shape)
    for center, radius, value in BALLS:
        offset = np.array(center) - rays.origin
        along = (offset * rays.direction).sum(-1)
        total += 2 * value * np.sqrt(np.maximum(radius**2 - (offset**2).sum(-1) + along**2, 0))
    return torch.from_numpy(total)


def phantom(geometry: ConeGeometry) -> torch.Tensor:
    (slices, height, width), (dz, dy, dx) = geometry.image_shape, geometry.voxel_zyx
    z = ((np.arange(slices) - (slices - 1) / 2) * dz)[:, None, None]
    y = (((height - 1) / 2 - np.arange(height)) * dy)[:, None]
    x = (np.arange(width) - (width - 1) / 2) * dx
    total = np.zeros(geometry.image_shape)
    for (cx, cy, cz), radius, value in BALLS:
        distance = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        total += value * np.clip(radius - distance + 0.5, 0, 1)
    return torch.from_numpy(total)


def cut(full: ConeGeometry, elements: int, side: str) -> tuple[ConeGeometry, slice]:
    """The scan without so many detector columns of one side, and which columns are left."""
    rows, columns = full.detectors
    shift = 0.5 * elements * full.detector_vu[1] * (1 if side == "low" else -1)
    half = full.replace(detectors=(rows, columns - elements), detector_offset_mm=(0.0, shift))
    return half, slice(elements, None) if side == "low" else slice(0, columns - elements)


def rmse(image: torch.Tensor, truth: torch.Tensor) -> float:
    return float((image - truth).square().mean().sqrt())


@pytest.fixture(scope="module")
def full() -> ConeGeometry:
    # The distances of a radiotherapy scanner, 360 degrees.
    return ConeGeometry.for_image((32, 48, 48), 1.0, 180, source_to_center_mm=1000, source_to_detector_mm=1536)


@pytest.mark.parametrize("side", ["low", "high"])
@pytest.mark.parametrize("elements", [20, 30])
def test_half_fan_within_five_percent_of_the_full_detector(full, side, elements):
    y, truth = line_integrals(full), phantom(full)
    half, kept = cut(full, elements, side)
    assert half.detectors[1] <= 0.72 * full.detectors[1]
    whole, part = fdk(y, full), fdk(y[..., kept], half)
    assert rmse(part, truth) <= 1.05 * rmse(whole, truth)
    assert float((part - whole).norm() / whole.norm()) < 0.03


@pytest.mark.parametrize("side", ["low", "high"])
def test_the_middle_slice_of_a_half_fan_is_the_fan_beam(side):
    cone = ConeGeometry(
        image_shape=(5, 24, 24), pixel_mm=1.0, views=40, detectors=(9, 45), detector_mm=1.5,
        source_to_center_mm=90, source_to_detector_mm=140,
    )  # fmt: skip
    half, _ = cut(cone, 14, side)
    fan = half.middle_fan()
    y = torch.rand(9, *fan.sinogram_shape, dtype=torch.float64).movedim(0, 1)
    axis = torch.arange(24) - 11.5
    inside = torch.hypot(axis[:, None], axis) < 11
    torch.testing.assert_close(fdk(y, half)[2][inside], fbp(y[:, 4], fan)[inside], rtol=1e-9, atol=1e-9)


def test_a_detector_beside_the_axis_is_refused(full):
    beside = full.replace(detectors=(4, 20), detector_offset_mm=(0.0, 80.0))
    with pytest.raises(ValueError, match="does not reach the rotation axis"):
        fdk(torch.zeros(beside.sinogram_shape), beside)


def test_data_of_another_shape_are_refused() -> None:
    geometry = ConeGeometry.for_image((4, 5, 6), 1.0, 3)
    with pytest.raises(ValueError, match=r"fdk: y must have trailing shape .*, got shape \(1, 3, 2, 2\)"):
        fdk(torch.zeros(1, 3, 2, 2), geometry)
