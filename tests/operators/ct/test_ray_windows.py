"""Which rays pass beside a pixel, by looking at every ray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.operators.ct import ParallelGeometry
from deft_ct.operators.ct.backends import ray_windows as module
from deft_ct.operators.ct.backends.ray_windows import RayArrays, ray_arrays, ray_windows
from deft_ct.operators.ct.rays import JosephRays, joseph_rays
from deft_ct.operators.ct.system_matrix import joseph_matrix


def arrays(geometry: Any) -> RayArrays:
    rays = joseph_rays(geometry.rays(), geometry.image_shape, geometry.pixel_rc)
    return ray_arrays(rays, geometry.image_shape, geometry.sinogram_shape, torch.device("cpu"))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_ray_beside_a_pixel_is_missed(random_geometries: Any, data: st.DataObject) -> None:
    geometry = data.draw(random_geometries())
    height, width = geometry.image_shape
    found = ray_windows(arrays(geometry), geometry.image_shape)
    windows = {
        (int(view), int(axis)): table for view, axis, table in zip(found.view, found.axis, found.first, strict=True)
    }
    csr = joseph_matrix(geometry, np.float64)
    rays = joseph_rays(geometry.rays(), geometry.image_shape, geometry.pixel_rc)
    for ray in range(csr.shape[0]):
        view, element = divmod(ray, geometry.detectors)
        part = slice(csr.indptr[ray], csr.indptr[ray + 1])
        pixels = csr.indices[part][csr.data[part] > 1e-9]
        if len(pixels):
            first = windows[view, int(rays.by_column[ray])][pixels // width, pixels % width]
            assert ((first <= element) & (element < first + found.most)).all()
    assert found.first.shape[1:] == (height, width)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_ranges_of_lines_hold_every_share_of_a_ray(random_geometries: Any, data: st.DataObject) -> None:
    """In single precision, in which a ray may reach an image line that it misses in double precision."""
    geometry = data.draw(random_geometries())
    found = arrays(geometry)
    for axis in range(2):
        lines, cells = geometry.image_shape[axis], geometry.image_shape[1 - axis]
        line = torch.arange(lines)
        position = found.start[axis, ..., None] + found.slope[axis, ..., None] * line
        share = (position > -1) & (position < cells)
        within = (line >= found.first[..., None]) & (line < found.last[..., None])
        assert (~share | within | (found.axis != axis)[..., None]).all()
        assert not share[found.axis != axis].any()


def test_ranges_are_wide_enough_for_rounding() -> None:
    """Some rays have a share of the line before or after their range in double precision, none beyond the wider one."""
    geometry = ParallelGeometry(
        image_shape=(1024, 1024), pixel_mm=0.7, views=180, start_angle=0.1234, detector_mm=0.09,
        detector_offset_mm=0.0123,
    )  # fmt: skip
    rays = joseph_rays(geometry.rays(), geometry.image_shape, geometry.pixel_rc)
    found = arrays(geometry)
    hits = torch.from_numpy(rays.first < rays.last).reshape(geometry.sinogram_shape)
    own = found.axis.long()[None]
    start, slope = found.start.gather(0, own)[0].double(), found.slope.gather(0, own)[0].double()

    def rays_on(line: Any) -> int:
        line = torch.as_tensor(line).reshape(geometry.sinogram_shape)
        position = (start + slope * line).float()
        return int((hits & (line >= 0) & (line < 1024) & (position > -1) & (position < 1024)).sum())

    assert rays_on(rays.first - 1) > 0 and rays_on(rays.last) > 0
    assert rays_on(found.first - 1) == rays_on(found.last) == 0


def test_ranges_of_flat_and_missing_rays() -> None:
    """A line wider on both sides; all lines for a ray that nearly runs along one cell; none for one that misses."""
    rays = JosephRays(
        start=np.array([2.0, 2.0, 2.0]), slope=np.array([0.5, 1e-4, 0.5]), weight=np.ones(3),
        by_column=np.array([False, True, False]), first=np.array([2, 2, 4]), last=np.array([5, 5, 4]),
    )  # fmt: skip
    found = ray_arrays(rays, (8, 9), (1, 3), torch.device("cpu"))
    assert found.first[0, :2].tolist() == [1, 0] and found.last[0].tolist() == [6, 9, 0]
    assert found.start[0, 0].tolist() == [2.0, -4.0, -4.0] and found.start[1, 0].tolist() == [-4.0, 2.0, -4.0]


def test_the_number_of_neighbours_is_that_of_the_widest_place() -> None:
    """Rays half a pixel apart: four of them are less than a pixel away from a pixel between two rays."""
    geometry = ParallelGeometry(image_shape=(8, 8), pixel_mm=1.0, angles=[0.0], detectors=16, detector_mm=0.5)
    found = ray_windows(arrays(geometry), (8, 8))
    assert found.most == 4
    assert found.first[0, 0].tolist() == [-2 + 2 * cell + 1 if cell else 0 for cell in range(8)]


def test_rays_in_another_order_are_refused() -> None:
    geometry = ParallelGeometry(image_shape=(8, 8), pixel_mm=1.0, angles=[0.0], detectors=8, detector_mm=1.0)
    rays = arrays(geometry)
    rays.start[:, 0, [1, 5]] = rays.start[:, 0, [5, 1]]
    with pytest.raises(ValueError, match="rays of view 0 that pass beside a pixel are not neighbours"):
        ray_windows(rays, (8, 8))


def test_a_scan_beside_the_image_has_no_passes() -> None:
    geometry = ParallelGeometry(
        image_shape=(4, 4), pixel_mm=1.0, views=3, detectors=2, detector_mm=1.0, detector_offset_mm=50.0
    )
    found = ray_windows(arrays(geometry), (4, 4))
    assert found.first.shape == (0, 4, 4) and found.view.shape == found.axis.shape == (0,)


def test_many_elements_take_wider_numbers() -> None:
    assert module._index_type(2**15 - 1) == torch.int16
    assert module._index_type(2**15) == torch.int32
