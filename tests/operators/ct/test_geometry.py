from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, geometry_from_dict
from deft_ct.operators.ct.backprojection import detector_coordinate
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.scan import ScanGeometry
from deft_ct.operators.ct.vectors import scan_vectors

VALID = {"image_shape": (8, 9), "pixel_mm": 1.5, "views": 5, "detectors": 11, "detector_mm": 1.0}
VALID_FAN = VALID | {"source_to_center_mm": 50.0, "source_to_detector_mm": 80.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 0}, "views must be >= 1, got 0"),
        ({"views": 2.5}, "views must be an integer, got 2.5"),
        ({"views": None}, "pass views .* or angles"),
        ({"angles": [0.1, 0.2]}, "disagrees with 2 angles"),
        ({"views": None, "angles": [0.1, math.nan]}, "angles must be finite radians, got nan at index 1"),
        ({"views": None, "angles": []}, "at least one angle"),
        ({"views": None, "angles": [[0.1]]}, "one-dimensional"),
        ({"pixel_mm": 0}, "pixel_mm.* must be > 0"),
        ({"pixel_mm": (1, 2, 3)}, "one number or 2 numbers"),
        ({"pixel_mm": math.inf}, "must be finite"),
        ({"image_shape": (8,)}, "must be 2 integers"),
        ({"image_shape": (8, 0)}, r"image_shape\[1\] must be >= 1"),
        ({"image_shape": 8}, "must be 2 integers"),
        ({"detectors": 0}, "detectors must be >= 1"),
        ({"detector_mm": -1}, "detector_mm must be > 0"),
        ({"detector_offset_mm": math.nan}, "detector_offset_mm must be finite"),
        ({"detector_mm": "wide"}, "detector_mm must be a number"),
    ],
)
def test_bad_values_are_named(changes, message):
    for cls, valid in ((ParallelGeometry, VALID), (FanGeometry, VALID_FAN)):
        with pytest.raises((ValueError, TypeError), match=message):
            cls(**(valid | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_to_center_mm": 5.0}, "source inside the image"),
        ({"source_to_detector_mm": 40.0}, "must not be below source_to_center_mm"),
        ({"source_to_detector_mm": 0.0}, "must be > 0"),
        ({"detector": "round"}, '"flat" or "curved", got \'round\''),
        ({"detector": "curved", "detectors": 300}, "half a turn"),
    ],
)
def test_bad_fans_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        FanGeometry(**(VALID_FAN | changes))


def test_keyword_only_and_frozen():
    with pytest.raises(TypeError):
        ParallelGeometry((8, 9), 1.5, 5, 11, 1.0)
    with pytest.raises(AttributeError):
        ParallelGeometry(**VALID).views = 3


def test_equal_scans_are_equal_values():
    by_views = ParallelGeometry(**VALID)
    by_angles = ParallelGeometry(**(VALID | {"views": None, "angles": np.arange(5) * math.pi / 5}))
    assert by_views == by_angles
    assert hash(by_views) == hash(by_angles)
    assert by_views != by_views.replace(detector_offset_mm=0.1)
    assert "views=5" in repr(by_views)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(data=st.data())
def test_json_round_trip(random_geometries, data):
    geometry = data.draw(random_geometries())
    assert geometry_from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry


def test_uniform_views_stay_uniform_in_json():
    geometry = FanGeometry(**VALID_FAN, start_angle=0.3)
    assert geometry.to_dict()["angles"] is None
    restored = geometry_from_dict(json.loads(json.dumps(geometry.to_dict())))
    assert restored.replace(views=7) == geometry.replace(views=7)
    with pytest.raises(ValueError, match="unknown fields"):
        ParallelGeometry.from_dict(geometry.to_dict() | {"kind": "parallel"})
    with pytest.raises(ValueError, match="geometry kind"):
        geometry_from_dict({"kind": "spiral"})


def test_replace():
    geometry = FanGeometry(**VALID_FAN)
    assert geometry.replace(views=8).angles == pytest.approx(np.arange(8) * math.pi / 4)
    assert geometry.replace(angles=(0.5, 0.25)).views == 2
    assert geometry.replace(angular_range=math.pi).views == 5
    with pytest.raises(TypeError, match="no field"):
        geometry.replace(view=3)


def test_refined_keeps_the_scan():
    geometry = ParallelGeometry(**(VALID | {"pixel_mm": (1.5, 1.0)}))
    fine = geometry.refined(3)
    assert fine.image_shape == (24, 27)
    assert fine.pixel_rc == pytest.approx((0.5, 1 / 3))
    np.testing.assert_array_equal(fine.rays().origin, geometry.rays().origin)


@pytest.mark.parametrize("detector", ["flat", "curved"])
def test_fan_rays_join_source_and_detector(detector):
    geometry = FanGeometry(**VALID_FAN, detector=detector, detector_offset_mm=0.7, axis_offset_mm=-0.4)
    rays = geometry.rays()
    np.testing.assert_allclose(np.linalg.norm(rays.direction, axis=-1), 1)
    for view, angle in enumerate(geometry.angle_array):
        u, n = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        source = -50 * n + 0.4 * u
        np.testing.assert_allclose(rays.origin[view], np.broadcast_to(source, (11, 2)), atol=1e-12)
        p = geometry.detector_positions
        if detector == "flat":
            hits = source + 80 * n + p[:, None] * u
        else:
            hits = source + 80 * (np.cos(p / 80)[:, None] * n + np.sin(p / 80)[:, None] * u)
        expected = (hits - source) / np.linalg.norm(hits - source, axis=-1, keepdims=True)
        np.testing.assert_allclose(rays.direction[view], expected, atol=1e-12)


@pytest.mark.parametrize("make", [ParallelGeometry.for_image, FanGeometry.for_image])
def test_for_image_covers_the_corners(make):
    geometry = make((30, 20), (1.0, 2.0), 7)
    rays = geometry.rays()
    distance = np.abs(rays.origin[..., 0] * rays.direction[..., 1] - rays.origin[..., 1] * rays.direction[..., 0])
    assert (distance.max(1) >= geometry.radius_mm - 1e-9).all()
    assert distance.max() < geometry.radius_mm + 2 * geometry.detector_mm


def test_presets():
    aapm = ParallelGeometry.aapm_sparse(60)
    assert aapm == ParallelGeometry(image_shape=(256, 256), pixel_mm=1.5, views=60, detectors=364, detector_mm=1.5)
    lodopab = ParallelGeometry.lodopab()
    assert lodopab.sinogram_shape == (1000, 513)
    assert lodopab.image_shape == (362, 362)
    assert 362 * lodopab.pixel_rc[0] == pytest.approx(260)
    assert ParallelGeometry.lodopab(200).angles == lodopab.angles[::5]
    with pytest.raises(ValueError, match="divide 1000"):
        ParallelGeometry.lodopab(60)


def test_for_volume_takes_shape_and_pixel():
    class Slices:
        image_shape = (16, 20)
        pixel_mm = 0.7

    assert FanGeometry.for_volume(Slices(), 9) == FanGeometry.for_image((16, 20), 0.7, 9)
    assert ParallelGeometry.for_volume(Slices(), 9) == ParallelGeometry.for_image((16, 20), 0.7, 9)


def test_the_width_of_a_fan_on_its_detector() -> None:
    """The ray that touches the circle about the image; along the arc of a curved detector."""
    flat = FanGeometry.for_image((60, 80), 1.0, 5, source_to_center_mm=100, source_to_detector_mm=160)
    angle = math.asin(50 / 100)
    assert flat.image_width_mm == pytest.approx(2 * 160 * math.tan(angle))
    assert flat.replace(detector="curved").image_width_mm == pytest.approx(2 * 160 * angle)
    for geometry in (flat, flat.replace(detector="curved")):
        wide = geometry.replace(detectors=geometry.covering_detectors)
        rays = wide.rays()
        away = abs(rays.origin[..., 0] * rays.direction[..., 1] - rays.origin[..., 1] * rays.direction[..., 0])
        assert away[:, 0].min() >= 50 - 1e-6, "the outermost rays pass by the image"
        assert wide.image_width_mm <= wide.covering_detectors * wide.detector_mm


def test_a_geometry_of_no_beam_has_no_rays() -> None:
    """The base classes say so, whatever they are asked."""
    planar = PlanarGeometry(**VALID)
    for ask in (lambda: planar.rays(), lambda: planar.image_width_mm, lambda: planar.covering_detectors):
        with pytest.raises(TypeError, match="PlanarGeometry has no rays; use ParallelGeometry or FanGeometry"):
            ask()
    bare = ScanGeometry(views=4)
    for ask in (lambda: bare.rays(), lambda: bare.sinogram_shape):
        with pytest.raises(TypeError, match="ScanGeometry is only a base class: use a parallel, fan or cone geometry"):
            ask()


def test_what_knows_parallel_and_fan_beams_alone() -> None:
    planar = PlanarGeometry(**VALID)
    with pytest.raises(TypeError, match="knows parallel and fan geometries, got PlanarGeometry"):
        detector_coordinate(planar, planar.angle_array, np.zeros(1), np.zeros(1))
    with pytest.raises(TypeError, match="geometry must be parallel, fan or cone, got PlanarGeometry"):
        scan_vectors(planar)


def test_the_scan_of_lodopab_is_the_published_one() -> None:
    """1000 views of half a turn, 513 elements over the diagonal of 26 cm (Leuschner et al. 2021)."""
    scan = ParallelGeometry.lodopab()
    assert (scan.image_shape, scan.detectors, len(scan.angles)) == ((362, 362), 513, 1000)
    assert scan.pixel_rc == pytest.approx((260 / 362,) * 2)
    assert scan.detectors * scan.detector_mm == pytest.approx(math.hypot(260, 260))
    assert len(ParallelGeometry.lodopab(50).angles) == 50


def test_the_sparse_scan_of_the_benchmark() -> None:
    scan = ParallelGeometry.aapm_sparse()
    assert (scan.image_shape, scan.pixel_rc, scan.detectors, scan.detector_mm) == ((256, 256), (1.5, 1.5), 364, 1.5)
    assert len(scan.angles) == 60 and len(ParallelGeometry.aapm_sparse(23).angles) == 23
