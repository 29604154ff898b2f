"""Geometries of ASTRA, tomosipo and ODL: there and back, the same lines, and turned objects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform, convert
from deft_ct.operators.ct.convert import (
    from_astra,
    from_odl,
    from_tomosipo,
    to_astra,
    to_astra_3d,
    to_odl,
    to_tomosipo,
)

FEW = settings(max_examples=30, deadline=None, derandomize=True)
TURN = 0.37
ANGLES = np.array([-0.4, 0.1, 0.2, 1.3])
PLANE: dict[str, Any] = {
    "image_shape": (6, 9), "pixel_mm": (1.5, 1.0), "angles": ANGLES, "detectors": 13, "detector_mm": 1.2
}  # fmt: skip
FAN = FanGeometry(
    **PLANE, source_to_center_mm=60, source_to_detector_mm=95, detector_offset_mm=0.7, axis_offset_mm=-0.4
)
SCANS = {
    "parallel": ParallelGeometry(**PLANE),
    "parallel, offsets": ParallelGeometry(**PLANE, detector_offset_mm=0.7, axis_offset_mm=-0.4),
    "fan": FAN.replace(detector_offset_mm=0.0, axis_offset_mm=0.0),
    "fan, offsets": FAN,
}
CONE = ConeGeometry(
    image_shape=(4, 6, 9), pixel_mm=(2.0, 1.5, 1.0), angles=ANGLES, detectors=(5, 7), detector_mm=(1.5, 1.2),
    source_to_center_mm=60, source_to_detector_mm=95, detector_offset_mm=(0.3, 0.7), axis_offset_mm=-0.4, pitch_mm=8.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def ts():
    """tomosipo, which is not on PyPI: its geometries work without a GPU."""
    pytest.importorskip("astra")
    return pytest.importorskip("tomosipo", reason="tomosipo is not installed")


@pytest.fixture(scope="module")
def odl():
    from deft_ct.operators.interop import import_odl

    pytest.importorskip("astra")
    try:
        return import_odl()
    except ImportError:
        pytest.skip("ODL is not installed")


def assert_same_scan(ours, theirs) -> None:
    """The same grid and the same lines; angles may differ by whole turns, rays of parallel beams by their start."""
    assert type(ours) is type(theirs)
    assert ours.image_shape == theirs.image_shape
    assert theirs.pixel_mm == pytest.approx(ours.pixel_mm)
    assert ours.sinogram_shape == theirs.sinogram_shape
    one, two = ours.rays(), theirs.rays()
    np.testing.assert_allclose(two.direction, one.direction, atol=1e-9)
    np.testing.assert_allclose(two.origin, one.origin, atol=1e-6)


@FEW
@given(data=st.data())
def test_astra_and_back(random_geometries, data):
    geometry = data.draw(random_geometries(kinds=("parallel", "flat")))
    for converted in (to_astra, to_astra_3d):
        assert_same_scan(geometry, from_astra(*converted(geometry)))
    back = from_astra(*to_astra(geometry))
    if isinstance(geometry, FanGeometry):
        offsets = (geometry.detector_offset_mm, geometry.axis_offset_mm)
        assert (back.detector_offset_mm, back.axis_offset_mm) == pytest.approx(offsets, abs=1e-6)


@pytest.mark.parametrize("pitch", [0.0, 8.0, -3.0])
def test_cones_to_astra_and_back(pitch):
    geometry = CONE.replace(pitch_mm=pitch, angles=ANGLES + (2 * math.pi if pitch > 0 else 0.0))
    back = from_astra(*to_astra(geometry))
    assert_same_scan(geometry, back)
    assert back.pitch_mm == pytest.approx(pitch)
    assert back.detector_offset_mm == pytest.approx((0.3, 0.7))


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_geometries_made_by_astra(kind):
    astra = pytest.importorskip("astra")
    geometry = SCANS[kind]
    volume = astra.create_vol_geom(6, 9, -4.5, 4.5, -4.5, 4.5)
    distances = () if kind == "parallel" else (60.0, 35.0)
    name = "parallel" if kind == "parallel" else "fanflat"
    projection = astra.create_proj_geom(name, 1.2, 13, ANGLES, *distances)
    assert from_astra(volume, projection) == geometry
    # ASTRA's own conversion to vectors is an independent word on where the rays run.
    assert_same_scan(geometry, from_astra(volume, astra.geom_2vec(projection)))


def test_cones_made_by_astra():
    astra = pytest.importorskip("astra")
    volume = astra.create_vol_geom(6, 9, 4, -4.5, 4.5, -4.5, 4.5, -4, 4)
    projection = astra.create_proj_geom("cone", 1.2, 1.5, 5, 7, ANGLES, 60.0, 35.0)
    expected = CONE.replace(detector_offset_mm=(0.0, 0.0), axis_offset_mm=0.0, pitch_mm=0.0)
    assert_same_scan(expected, from_astra(volume, projection))
    assert_same_scan(expected, from_astra(volume, astra.geom_2vec(projection)))
    flat = astra.create_proj_geom("parallel3d", 1.2, 1.5, 4, 13, ANGLES)
    assert_same_scan(SCANS["parallel"], from_astra(volume, flat))


@pytest.mark.parametrize("name", ["parallel", "fan", "fan, offsets", "parallel, offsets"])
def test_turning_the_object_turns_astras_scan(name):
    pytest.importorskip("astra")
    geometry = SCANS[name].replace(image_shape=(9, 9), pixel_mm=1.0)
    turned = geometry.replace(angles=ANGLES + math.pi / 2)
    x = torch.rand(9, 9, generator=torch.Generator().manual_seed(0))
    y = RayTransform(turned, "astra")(torch.rot90(x, 1))
    torch.testing.assert_close(y, RayTransform(geometry, "astra")(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*SCANS, "cone"])
def test_tomosipo_and_back(ts, name):
    geometry = CONE if name == "cone" else SCANS[name]
    volume, projection = to_tomosipo(geometry)
    assert_same_scan(geometry, from_tomosipo(volume, projection))
    assert projection.num_angles == len(ANGLES)


@pytest.mark.parametrize("name", [*SCANS, "cone"])
def test_tomosipo_turns_its_scan_as_we_do(ts, name):
    geometry = CONE.replace(pitch_mm=0.0) if name == "cone" else SCANS[name]
    _, projection = to_tomosipo(geometry)
    turn = ts.rotate(pos=(0, 0, 0), axis=(1, 0, 0), angles=TURN)
    _, expected = to_tomosipo(geometry.replace(angles=ANGLES + TURN))
    turned = turn * projection
    for field in ("det_pos", "det_u", "det_v", "ray_dir" if projection.is_parallel else "src_pos"):
        np.testing.assert_allclose(getattr(turned, field), getattr(expected, field), atol=1e-9)
    # tomosipo's own circular scans are ours without offsets.
    if name in ("parallel", "fan"):
        size = {"shape": (1, 13), "size": (1.0, 13 * 1.2), "angles": ANGLES}
        distances = {} if name == "parallel" else {"src_orig_dist": 60.0, "src_det_dist": 95.0}
        made = (ts.parallel if name == "parallel" else ts.cone)(**size, **distances)
        assert_same_scan(geometry, from_tomosipo(to_tomosipo(geometry)[0], made))


def test_tomosipo_sees_points_where_our_rays_run(ts):
    _, projection = to_tomosipo(CONE)
    point = np.array([1.0, 2.0, -3.0])  # x, y, z
    v, u = np.asarray(projection.project_point((point[2], point[1], point[0]))).T
    rays = CONE.rays()
    for view in range(len(ANGLES)):
        to_point = point - rays.origin[view, 0, 0]
        source, corner, row_step, column_step = (a[view] for a in CONE.poses())
        matrix = np.stack([to_point, -row_step, -column_step], -1)
        _, row, column = np.linalg.solve(matrix, corner - source)
        middle = (np.array(CONE.detectors) - 1) / 2
        np.testing.assert_allclose([v[view] + middle[0], u[view] + middle[1]], [row, column], atol=1e-6)


def test_a_batch_of_parallel_slices_is_a_stack(ts):
    volume, projection = to_tomosipo(SCANS["parallel"], slices=8)
    assert volume.shape == (8, 6, 9)
    assert projection.det_shape == (8, 13)
    assert_same_scan(SCANS["parallel"], from_tomosipo(volume, projection))
    with pytest.raises(ValueError, match="slices of a parallel beam"):
        to_tomosipo(FAN, slices=2)


@pytest.mark.filterwarnings("ignore")  # ODL's own
@pytest.mark.parametrize("detector", ["parallel", "flat", "curved"])
@pytest.mark.parametrize("uniform", [True, False])
def test_odl_and_back(odl, detector, uniform):
    geometry = SCANS["parallel, offsets"] if detector == "parallel" else FAN.replace(detector=detector)
    if uniform:
        geometry = geometry.replace(views=7)
    space, scan = to_odl(geometry)
    back = from_odl(space, scan)
    assert_same_scan(geometry, back)
    if detector != "parallel":
        assert back.axis_offset_mm == pytest.approx(-0.4)
        assert back.detector == detector
        return
    # ODL's word on where an element sits, with its x counting rows downwards.
    points = scan.det_point_position(scan.angles[2], scan.det_partition.meshgrid[0].ravel())
    across = np.array([np.cos(back.angles[2]), np.sin(back.angles[2])])
    np.testing.assert_allclose(np.stack([points[:, 1], -points[:, 0]], -1) @ across, geometry.rays().origin[2] @ across)


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_converted_is_said(odl):
    curved = FAN.replace(detector="curved")
    with pytest.raises(ValueError, match="curved detector"):
        to_astra(curved)
    with pytest.raises(ValueError, match="ascending angles"):
        to_odl(FAN.replace(angles=ANGLES[::-1]))
    with pytest.raises(TypeError, match="parallel or fan geometry, got ConeGeometry"):
        to_odl(CONE)
    volume, projection = to_astra(FAN)
    with pytest.raises(ValueError, match="type 'sparse_matrix'"):
        from_astra(volume, {"type": "sparse_matrix"})
    bent = projection["Vectors"].copy()
    bent[1, :2] *= 1.01
    with pytest.raises(ValueError, match=r"the distance from source to .* must be the same in all views"):
        from_astra(volume, projection | {"Vectors": bent})
    mirrored = projection["Vectors"] * [1, 1, 1, 1, -1, -1]
    with pytest.raises(ValueError, match="counter-clockwise"):
        from_astra(volume, projection | {"Vectors": mirrored})
    window = volume["option"] | {"WindowMinX": -1.0}
    with pytest.raises(ValueError, match="centred on the rotation axis"):
        from_astra(volume | {"option": window}, projection)


def test_missing_tomosipo_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tomosipo", None)
    with pytest.raises(ImportError, match=r"pip install deft-ct\[tomosipo\]"):
        to_tomosipo(FAN)


def test_slices_of_divergent_beams_cannot_be_stacked():
    with pytest.raises(ValueError, match="only slices of a parallel beam can be stacked; got slices = 3"):
        to_astra_3d(FAN, slices=3)
    with pytest.raises(ValueError, match="only slices of a parallel beam"):
        to_astra_3d(CONE, slices=2)
    volume, projection = to_astra_3d(SCANS["parallel"], slices=3)
    assert volume["GridSliceCount"] == 3 and projection["DetectorRowCount"] == 3
    assert to_astra_3d(FAN)[1]["DetectorRowCount"] == 1


@pytest.mark.filterwarnings("ignore")
def test_odl_scans_that_are_not_ours(odl):
    space, scan = to_odl(FAN)
    wide = odl.uniform_discr([-6, -7, 0], [6, 7, 1], [24, 28, 1], dtype="float32")
    for other in ((wide, scan), (space, odl.uniform_partition(0, 1, 4))):
        with pytest.raises(ValueError, match="from_odl needs a 2D space and a parallel or fan beam geometry"):
            from_odl(*other)
    off = odl.uniform_discr(np.asarray(space.min_pt) + 1, np.asarray(space.max_pt) + 1, space.shape, dtype="float32")
    with pytest.raises(ValueError, match="centred"):
        from_odl(off, scan)


@pytest.mark.parametrize("kind", ["parallel3d", "cone"])
def test_vectors_of_astras_scans_are_those_of_astra(kind: str) -> None:
    astra = pytest.importorskip("astra")
    angles = np.array([0.1, 1.3, 2.9])
    distances = [] if kind == "parallel3d" else [70.0, 50.0]
    projection = astra.create_proj_geom(kind, 1.5, 0.75, 4, 6, angles, *distances)
    expected = astra.geom_2vec(projection)["Vectors"]
    np.testing.assert_allclose(convert._vectors_3d(projection, angles), expected, atol=1e-12)
