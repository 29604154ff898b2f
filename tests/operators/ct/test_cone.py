from __future__ import annotations

import json
import logging
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.operators.ct import ConeGeometry, FanGeometry, RayTransform, fbp, fdk, geometry_from_dict
from deft_ct.operators.ct.backends.choice import choose_backend
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients, assert_linear

pytest.importorskip("numba")
BALL = ((4.0, -6.0, 3.0), 13.0, 0.02)


@st.composite
def cones(draw: st.DrawFn) -> ConeGeometry:
    to_center = draw(st.floats(40, 200))
    return ConeGeometry(
        image_shape=tuple(draw(st.integers(1, 7)) for _ in range(3)),
        pixel_mm=tuple(draw(st.floats(0.5, 2)) for _ in range(3)),
        angles=draw(st.lists(st.floats(-7, 7), min_size=1, max_size=4)),
        detectors=(draw(st.integers(1, 8)), draw(st.integers(1, 8))),
        detector_mm=(draw(st.floats(0.5, 3)), draw(st.floats(0.5, 3))),
        source_to_center_mm=to_center,
        source_to_detector_mm=to_center * draw(st.floats(1, 2)),
        detector_offset_mm=(draw(st.floats(-2, 2)), draw(st.floats(-2, 2))),
        axis_offset_mm=draw(st.floats(-2, 2)),
        pitch_mm=draw(st.sampled_from([0.0, 5.0])),
    )


def ball_integrals(geometry: ConeGeometry) -> torch.Tensor:
    center, radius, value = BALL
    rays = geometry.rays()
    offset = np.array(center) - rays.origin
    along = (offset * rays.direction).sum(-1)
    return torch.from_numpy(2 * value * np.sqrt(np.maximum(radius**2 - (offset**2).sum(-1) + along**2, 0)))


def distance_to_ball(geometry: ConeGeometry) -> torch.Tensor:
    center, _, _ = BALL
    (slices, height, width), (dz, dy, dx) = geometry.image_shape, geometry.voxel_zyx
    z = ((np.arange(slices) - (slices - 1) / 2) * dz)[:, None, None]
    y = (((height - 1) / 2 - np.arange(height)) * dy)[:, None]
    x = (np.arange(width) - (width - 1) / 2) * dx
    return torch.from_numpy(np.sqrt((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2))


@pytest.mark.parametrize("backend", ["matrix", "joseph"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(geometry=cones())
def test_adjoint_and_linearity_on_random_scans(backend, geometry):
    op = RayTransform(geometry, backend)
    assert_adjoint(op)
    assert_adjoint(op, dtype=torch.float32)
    assert_linear(op)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(geometry=cones())
def test_backends_agree(geometry):
    x = torch.rand(geometry.image_shape, dtype=torch.float64)
    matrix, free = RayTransform(geometry, "matrix"), RayTransform(geometry, "joseph")
    y = matrix(x)
    torch.testing.assert_close(free(x), y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(free.adjoint(y), matrix.adjoint(y), rtol=1e-9, atol=1e-9)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(geometry=cones())
def test_gradients(geometry):
    assert_gradients(RayTransform(geometry, "joseph"))


def test_batch_gives_the_bits_of_its_members_and_pickles():
    op = RayTransform(ConeGeometry.for_image((6, 8, 9), 1.0, 5), "joseph")
    assert_batch_invariant(op, batch=3)
    x = torch.rand(6, 8, 9)
    assert torch.equal(pickle.loads(pickle.dumps(op))(x), op(x))


def test_the_middle_slice_is_the_fan_beam():
    fan = FanGeometry.for_image((24, 24), 1.0, 9, source_to_center_mm=60, source_to_detector_mm=90)
    cone = ConeGeometry(
        image_shape=(1, 24, 24), pixel_mm=(1.0, 1.0, 1.0), views=9, detectors=(1, fan.detectors),
        detector_mm=fan.detector_mm, source_to_center_mm=60, source_to_detector_mm=90,
    )  # fmt: skip
    assert cone.middle_fan() == fan
    x = torch.rand(24, 24, dtype=torch.float64)
    for backend in ("matrix", "joseph"):
        y = RayTransform(cone, backend)(x[None])
        torch.testing.assert_close(y[:, 0], RayTransform(fan)(x), rtol=1e-10, atol=1e-10)


def test_projections_of_a_ball_converge():
    errors = []
    for factor in (1, 2):
        geometry = ConeGeometry.for_image(
            (32, 36, 36), 1.2, 8, source_to_center_mm=150, source_to_detector_mm=250
        ).refined(factor)
        distance, voxel = distance_to_ball(geometry), max(geometry.voxel_zyx)
        ball = BALL[2] * ((BALL[1] - distance) / voxel + 0.5).clamp(0, 1)  # the edge as a linear ramp
        exact = ball_integrals(geometry)
        errors.append(float((RayTransform(geometry, "joseph")(ball) - exact).norm() / exact.norm()))
        # As for a disc (see test_ray_transform.py), with a spherical edge: sqrt(8 c) h / R, c = 0.0198 and a little
        # more from the interpolation along the third axis.
        assert errors[-1] == pytest.approx(math.sqrt(8 * 0.0198) * voxel / BALL[1], rel=0.12)
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("short", [False, True])
def test_fdk_of_a_ball_within_one_percent(short):
    geometry = ConeGeometry.for_image((40, 48, 48), 1.0, 240, source_to_center_mm=300, source_to_detector_mm=500)
    if short:
        fan = float(geometry.middle_fan().fan_angles.max())
        geometry = geometry.replace(angular_range=math.pi + 2 * fan, start_angle=0.4)
    image = fdk(ball_integrals(geometry), geometry)
    inside = image[distance_to_ball(geometry) < BALL[1] - 4] / BALL[2]
    assert float(inside.mean()) == pytest.approx(1, abs=2e-3)
    assert float((inside - 1).abs().max()) < 0.01


def test_fdk_of_the_middle_plane_is_the_fan_beam_fbp():
    cone = ConeGeometry(
        image_shape=(5, 24, 24), pixel_mm=1.0, views=40, detectors=(9, 45), detector_mm=1.5,
        source_to_center_mm=90, source_to_detector_mm=140,
    )  # fmt: skip
    fan = cone.middle_fan()
    y = torch.rand(9, *fan.sinogram_shape, dtype=torch.float64).movedim(0, 1)
    axis = torch.arange(24) - 11.5
    inside = torch.hypot(axis[:, None], axis) < 11
    expected = fbp(y[:, 4], fan)  # the middle row of the detector lies in the plane of the source
    torch.testing.assert_close(fdk(y, cone)[2][inside], expected[inside], rtol=1e-9, atol=1e-9)


def test_fdk_is_differentiable_and_batched():
    geometry = ConeGeometry.for_image((3, 5, 6), 1.0, 4, source_to_center_mm=30, source_to_detector_mm=50)
    y = torch.rand(2, 1, *geometry.sinogram_shape, dtype=torch.float64, requires_grad=True)
    assert fdk(y, geometry).shape == (2, 1, 3, 5, 6)
    torch.testing.assert_close(fdk(y[1, 0], geometry), fdk(y, geometry)[1, 0])
    torch.autograd.gradcheck(lambda z: fdk(z, geometry, "hann"), y[0, 0].detach().requires_grad_(), fast_mode=True)
    torch.testing.assert_close(RayTransform(geometry, "joseph").pseudo_inverse(y), fdk(y, geometry))


def test_json_round_trip():
    geometry = ConeGeometry.for_image((3, 5, 6), (1.0, 2.0, 3.0), 4, source_to_center_mm=30, source_to_detector_mm=50)
    geometry = geometry.replace(pitch_mm=3.0, detector_offset_mm=(1.0, 2.0))
    assert geometry_from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry
    assert hash(geometry) == hash(geometry.replace())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_to_center_mm": 2.0}, "source inside the image"),
        ({"detectors": 5}, "detectors must be 2 integers"),
        ({"detector_offset_mm": 1.0}, "along rows, along columns"),
        ({"pitch_mm": math.nan}, "pitch_mm must be finite"),
        ({"image_shape": (3, 4)}, "image_shape must be 3 integers"),
    ],
)
def test_bad_values_are_named(changes, message):
    geometry = ConeGeometry.for_image((3, 5, 6), 1.0, 4, source_to_center_mm=30, source_to_detector_mm=50)
    with pytest.raises((ValueError, TypeError), match=message):
        geometry.replace(**changes)


def test_what_cannot_be_done_is_said():
    geometry = ConeGeometry.for_image((3, 5, 6), 1.0, 4, source_to_center_mm=30, source_to_detector_mm=50)
    y = torch.rand(geometry.sinogram_shape)
    with pytest.raises(ValueError, match="circular scans, got pitch_mm = 4"):
        fdk(y, geometry.replace(pitch_mm=4.0))
    with pytest.raises(TypeError, match="needs a ConeGeometry, got FanGeometry"):
        fdk(y, geometry.middle_fan())
    with pytest.raises(TypeError, match="cone beams use fdk"):
        fbp(y, geometry)
    with pytest.raises(ValueError, match="without a GPU"):
        RayTransform(geometry, "astra")


def test_large_matrices_are_not_stored(monkeypatch, caplog):
    huge = FanGeometry.for_image((512, 512), 0.7, 1000)
    assert choose_backend(huge).name == "joseph"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_backend(huge.replace(detector="curved")) == choose_backend(huge)
    assert choose_backend(huge).name == "matrix"
    assert "in blocks" in choose_backend(huge).reason
    geometry = FanGeometry.for_image((24, 24), 1.0, 9, source_to_center_mm=60, source_to_detector_mm=90)
    with caplog.at_level(logging.INFO, "deft_ct"):
        op = RayTransform(geometry)
    assert "backend matrix, because the matrices take up to" in caplog.text
    x = torch.rand(3, 24, 24)
    y = op(x)
    monkeypatch.setattr("deft_ct.operators.ct.backends.matrix.STORED_BYTES", 0)
    monkeypatch.setattr("deft_ct.operators.ct.backends.matrix.BLOCK_BYTES", 50_000)
    blocked = RayTransform(geometry, "matrix")
    assert len(blocked._backend._blocks(x)) > 3
    torch.testing.assert_close(blocked(x), y, rtol=1e-6, atol=1e-6)
    assert_adjoint(blocked)


def test_missing_numba_names_the_extra(monkeypatch):
    import sys

    import deft_ct.operators.ct.backends as package

    for name in ("_cone_kernels", "_vector_kernels"):
        monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", None)
        monkeypatch.delattr(package, name, raising=False)
    geometry = ConeGeometry.for_image((3, 5, 6), 1.0, 4)
    for scan in (geometry, geometry.middle_fan()):
        with pytest.raises(ImportError, match=r"pip install deft-ct\[numba\]"):
            RayTransform(scan, "joseph")


def test_fdk_refuses_integers():
    cone = ConeGeometry(
        image_shape=(3, 5, 6), pixel_mm=1.0, views=8, angular_range=2 * math.pi, detectors=(5, 9), detector_mm=1.5,
        source_to_center_mm=40, source_to_detector_mm=60,
    )  # fmt: skip
    with pytest.raises(TypeError, match=r"fdk needs a floating-point tensor, got torch\.int32"):
        fdk(torch.ones(cone.sinogram_shape, dtype=torch.int32), cone)


@pytest.mark.parametrize("number", [int, np.float32, np.int64])
def test_lengths_are_plain_numbers_whatever_was_given(number):
    """So the record of a scan can be written as JSON, and equal scans have one record."""
    lengths = {"source_to_center_mm": 60, "source_to_detector_mm": 95, "axis_offset_mm": 2, "pitch_mm": 8}
    pairs = {"pixel_mm": (2, 3, 1), "detector_mm": (4, 2), "detector_offset_mm": (1, -2)}
    shape = {"image_shape": (4, 6, 9), "detectors": (5, 7), "views": 3}
    made = ConeGeometry(
        **shape, **{n: number(v) for n, v in lengths.items()},
        **{n: tuple(map(number, v)) for n, v in pairs.items()},
    )  # fmt: skip
    plain = ConeGeometry(
        **shape, **{n: float(v) for n, v in lengths.items()},
        **{n: tuple(map(float, v)) for n, v in pairs.items()},
    )  # fmt: skip
    assert json.dumps(made.to_dict()) == json.dumps(plain.to_dict())
    plane = {"image_shape": (6, 9), "detectors": 7, "views": 3}
    widths = {"detector_mm": 2, "detector_offset_mm": -2, "axis_offset_mm": 2}
    widths |= {"source_to_center_mm": 60, "source_to_detector_mm": 95}
    fans = [
        FanGeometry(**plane, pixel_mm=(kind(3), kind(1)), **{n: kind(v) for n, v in widths.items()})
        for kind in (number, float)
    ]
    assert json.dumps(fans[0].to_dict()) == json.dumps(fans[1].to_dict())
