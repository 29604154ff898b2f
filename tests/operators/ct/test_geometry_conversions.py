"""Checks and equalities of geometries that a scan of another library meets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, htc2022
from deft_ct.operators.ct.convert import from_odl, to_odl
from deft_ct.operators.ct.vectors import geometry_from_vectors, scan_vectors

PARALLEL = ParallelGeometry.for_image((6, 5), (1.0, 1.5), 7)
QUARTER = 0.5 * math.pi  # ODL's x counts rows downwards
FAN = FanGeometry.for_image((6, 5), 1.0, 7, source_to_center_mm=30, source_to_detector_mm=50)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_first_angle_that_is_not_finite_is_refused_by_name(value: float) -> None:
    for geometry in (PARALLEL, FAN):
        with pytest.raises(ValueError, match="start_angle must be finite"):
            geometry.replace(start_angle=value)
        with pytest.raises(ValueError, match="start_angle must be finite"):  # even where it is not used
            replace(geometry, start_angle=value)


def test_geometries_with_the_same_views_are_equal_however_they_were_given() -> None:
    by_count = PARALLEL.replace(views=8, start_angle=0.3, angular_range=2.0)
    listed = PARALLEL.replace(angles=0.3 + 2.0 * np.arange(8) / 8)
    assert by_count == listed and hash(by_count) == hash(listed)
    assert by_count != PARALLEL.replace(views=8, start_angle=0.4, angular_range=2.0)


@pytest.mark.parametrize("tilt", [1e-3, 0.2, math.pi / 2])
def test_rays_that_are_oblique_to_a_parallel_detector_are_refused(tilt: float) -> None:
    vectors = scan_vectors(PARALLEL)
    turn = np.array([[math.cos(tilt), -math.sin(tilt), 0], [math.sin(tilt), math.cos(tilt), 0], [0, 0, 1]])
    assert geometry_from_vectors(vectors, (1, 6, 5), (1.0, 1.0, 1.5)) == PARALLEL
    one = vectors.beam.copy()
    one[3] = turn @ one[3]  # a single view is enough
    for beam in (vectors.beam @ turn.T, one, vectors.beam + np.array([0, 0, tilt])):
        with pytest.raises(ValueError, match="the rays must be at right angles to the detector"):
            geometry_from_vectors(replace(vectors, beam=beam), (1, 6, 5), (1.0, 1.0, 1.5))


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
@pytest.mark.parametrize("views", [1, 2, 7])
def test_odl_gets_a_uniform_partition_of_uniform_views(geometry: ParallelGeometry, views: int) -> None:
    pytest.importorskip("odl")
    uniform = geometry.replace(views=views, start_angle=0.2, angular_range=2.1)
    _, scan = to_odl(uniform)
    assert scan.motion_partition.is_uniform
    step = 2.1 / views if views > 1 else math.pi
    assert scan.motion_params.min_pt[0] == pytest.approx(QUARTER + 0.2 - step / 2)
    assert scan.motion_params.max_pt[0] == pytest.approx(QUARTER + 0.2 + (views - 0.5) * step)
    np.testing.assert_allclose(scan.angles, QUARTER + uniform.angle_array, rtol=1e-12)
    back = from_odl(*to_odl(uniform))
    np.testing.assert_allclose(back.angle_array, uniform.angle_array, rtol=1e-12)


def test_odl_gets_the_angles_of_views_that_are_not_uniform() -> None:
    pytest.importorskip("odl")
    uneven = PARALLEL.replace(angles=[0.1, 0.2, 0.5, 0.9])
    _, scan = to_odl(uneven)
    assert not scan.motion_partition.is_uniform
    np.testing.assert_allclose(scan.angles, QUARTER + uneven.angle_array, rtol=1e-12)


def test_the_scanner_of_the_helsinki_challenge() -> None:
    """Values of Meaney, Silva de Moura and Siltanen 2022 (zenodo 6984868)."""
    geometry = htc2022().geometry
    assert isinstance(geometry, FanGeometry)
    assert (geometry.source_to_center_mm, geometry.source_to_detector_mm) == (410.66, 553.74)
    assert (geometry.detectors, geometry.detector_mm, geometry.detector) == (560, 0.2, "flat")
    assert geometry.image_shape == (512, 512)
    assert (geometry.detector_offset_mm, geometry.axis_offset_mm) == (0, 0)


@pytest.mark.parametrize(("part", "joined"), [(5e-10, True), (2e-9, False)])
def test_a_detector_in_the_axis_up_to_rounding_is_in_the_axis(part, joined):
    """A fan whose detector passes through the axis, with a distance that is short by a part of itself."""
    geometry = FanGeometry(
        image_shape=(6, 5), pixel_mm=1.0, views=7, detectors=9, detector_mm=1.0, source_to_center_mm=50.0,
        source_to_detector_mm=50.0,
    )  # fmt: skip
    vectors = scan_vectors(geometry)
    short = replace(vectors, center=vectors.center + part * (vectors.beam - vectors.center))
    if joined:
        found = geometry_from_vectors(short, (1, 6, 5), (1.0, 1.0, 1.0))
        assert found.source_to_detector_mm == found.source_to_center_mm == pytest.approx(50.0)
    else:
        with pytest.raises(ValueError, match="must not be below source_to_center_mm"):
            geometry_from_vectors(short, (1, 6, 5), (1.0, 1.0, 1.0))
