"""What is no scan on a circle or a helix is refused, and the message says what is not the same in all views."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry
from deft_ct.operators.ct.vectors import ScanVectors, geometry_from_vectors, scan_vectors

CONE = ConeGeometry(
    image_shape=(4, 6, 9), pixel_mm=(2.0, 1.5, 1.0), angles=[-0.4, 0.1, 0.2, 1.3], detectors=(5, 7),
    detector_mm=(1.5, 1.2), source_to_center_mm=60, source_to_detector_mm=95, detector_offset_mm=(0.3, 0.7),
    axis_offset_mm=-0.4, pitch_mm=8.0,
)  # fmt: skip
SHAPE, VOXEL = (4, 6, 9), (2.0, 1.5, 1.0)


def restored(vectors: ScanVectors, shape: tuple[int, int, int] = SHAPE) -> Any:
    return geometry_from_vectors(vectors, shape, VOXEL)


def axes(view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    b = CONE.angles[view]
    return (
        np.array([math.cos(b), math.sin(b), 0]), np.array([-math.sin(b), math.cos(b), 0]), np.array([0.0, 0, 1]),
    )  # fmt: skip


def changed(**changes: np.ndarray) -> ScanVectors:
    """The vectors of the cone with something added in view 2."""
    vectors = scan_vectors(CONE)
    values = {name: getattr(vectors, name).copy() for name in changes}
    for name, change in changes.items():
        values[name][2] += change
    return replace(vectors, **values)


ACROSS, ALONG, UP = axes(2)
REFUSED = {
    "the width of the detector elements": {"column_step": 0.01 * ACROSS},
    "the detector rows must be at right angles to the rotation axis": {"column_step": 1e-4 * UP},
    "the height of the detector elements": {"row_step": 0.01 * UP},
    "the detector columns must run along the rotation axis": {"row_step": 1e-4 * ALONG},
    "the distance from source to detector must be the same": {"center": 0.01 * ALONG},
    "the offset of the detector must be the same": {"center": 0.01 * ACROSS},
    "the distance from source to axis must be the same": {"beam": 0.01 * ALONG, "center": 0.01 * ALONG},
    "the offset of the axis must be the same": {"beam": 0.01 * ACROSS, "center": 0.01 * ACROSS},
    "the height of the detector over the source must be the same": {"center": 0.01 * UP},
    "a helix that passes z = 0 at angle 0": {"beam": 0.01 * UP, "center": 0.01 * UP},
}


@pytest.mark.parametrize("message", REFUSED)
def test_one_view_that_differs_is_named(message: str) -> None:
    with pytest.raises(ValueError, match=f"this scan cannot be converted: .*{message}"):
        restored(changed(**REFUSED[message]))
    slight = {name: 1e-6 * change for name, change in REFUSED[message].items()}
    assert restored(changed(**slight)).detectors == (5, 7)


def test_rows_that_count_downwards_are_refused() -> None:
    vectors = scan_vectors(CONE)
    with pytest.raises(ValueError, match="the detector columns must run along the rotation axis"):
        restored(replace(vectors, row_step=-vectors.row_step))
    with pytest.raises(ValueError, match="must count counter-clockwise seen from above"):
        restored(replace(vectors, column_step=-vectors.column_step))


@pytest.mark.parametrize("pitch", [0.0, 8.0, -3.0, 1e-3])
@pytest.mark.parametrize("turn", [0, 1, -2])
def test_a_cone_is_restored_with_its_turns(pitch: float, turn: int) -> None:
    cone = CONE.replace(pitch_mm=pitch, angles=np.array(CONE.angles) + 2 * math.pi * turn)
    found = restored(scan_vectors(cone))
    assert isinstance(found, ConeGeometry) and found.pitch_mm == pytest.approx(pitch, abs=1e-9)
    turned = 0.0 if pitch else 2 * math.pi * turn  # a circle does not tell its turns
    np.testing.assert_allclose(found.angle_array, cone.angle_array - turned, atol=1e-6)
    for name in ("source_to_center_mm", "source_to_detector_mm", "axis_offset_mm", "detector_offset_mm",
                 "detector_mm", "image_shape", "pixel_mm"):  # fmt: skip
        assert getattr(found, name) == pytest.approx(getattr(cone, name), abs=1e-9), name


def test_a_helix_needs_two_views_and_a_slope() -> None:
    one = scan_vectors(CONE.replace(angles=[0.3]))
    with pytest.raises(ValueError, match="one view alone does not tell the pitch of a helix"):
        restored(one)
    vectors = scan_vectors(CONE.replace(pitch_mm=0.0))
    lifted = replace(vectors, beam=vectors.beam + UP, center=vectors.center + UP)
    with pytest.raises(ValueError, match="must move along a circle or a helix about the z axis"):
        restored(lifted)


FAN = FanGeometry(
    image_shape=(6, 9), pixel_mm=(1.5, 1.0), angles=[-0.4, 0.1, 1.3], detectors=7, detector_mm=1.2,
    source_to_center_mm=60, source_to_detector_mm=95, detector_offset_mm=0.7, axis_offset_mm=-0.4,
)  # fmt: skip


def test_one_slice_and_one_row_are_a_fan() -> None:
    """In the plane z = 0; anything else is a cone."""
    vectors = scan_vectors(FAN)
    assert vectors.detectors == (1, 7)
    np.testing.assert_array_equal(vectors.row_step, [[0, 0, 1]] * 3)
    found = restored(vectors, (1, 6, 9))
    assert isinstance(found, FanGeometry)
    for name in ("detectors", "source_to_center_mm", "source_to_detector_mm", "axis_offset_mm", "detector_offset_mm"):
        assert getattr(found, name) == pytest.approx(getattr(FAN, name), abs=1e-9)
    for other, shape in (
        (vectors, (2, 6, 9)), (replace(vectors, detectors=(2, 7)), (1, 6, 9)),
        (replace(vectors, center=vectors.center + 0.1 * UP), (1, 6, 9)),
    ):  # fmt: skip
        cone = restored(other, shape)
        assert isinstance(cone, ConeGeometry) and cone.image_shape == shape and cone.detectors == other.detectors
        assert cone.detector_offset_mm[0] == pytest.approx(0.0 if other.center is vectors.center else 0.1)
        assert cone.detector_mm == pytest.approx((1.0, 1.2))


def test_a_parallel_beam_has_one_offset() -> None:
    """That of the detector, less that of the axis; the rays may have any length."""
    scan = ParallelGeometry(
        image_shape=(6, 9), pixel_mm=(1.5, 1.0), angles=[-0.4, 0.1, 1.3], detectors=7, detector_mm=1.2,
        detector_offset_mm=0.7, axis_offset_mm=-0.4,
    )  # fmt: skip
    vectors = scan_vectors(scan)
    assert vectors.parallel and vectors.detectors == (1, 7)
    found = restored(replace(vectors, beam=-3 * vectors.beam), (5, 6, 9))
    assert isinstance(found, ParallelGeometry) and found.image_shape == (6, 9)
    assert (found.detector_offset_mm, found.axis_offset_mm) == pytest.approx((1.1, 0.0))
    vectors.center[1] += 0.01 * np.array([math.cos(0.1), math.sin(0.1), 0])
    with pytest.raises(ValueError, match="the offset of the detector must be the same in all views"):
        restored(vectors, (1, 6, 9))


@pytest.mark.parametrize("middle", [0.0, 100.0])
@pytest.mark.parametrize(("spread", "same"), [(0.9, True), (1.1, False)])
def test_values_agree_to_a_millionth(middle: float, spread: float, same: bool) -> None:
    """Of a millimetre, or of themselves where they are larger: here the offset of a detector."""
    scan = ParallelGeometry(
        image_shape=(6, 9), pixel_mm=1.0, angles=[0.0, 0.0], detectors=7, detector_mm=1.0, detector_offset_mm=middle
    )
    vectors = scan_vectors(scan)
    vectors.center[1, 0] += spread * 1e-6 * max(1.0, middle)
    if same:
        assert restored(vectors).detector_offset_mm == pytest.approx(middle, abs=1e-4)
    else:
        with pytest.raises(ValueError, match="the offset of the detector"):
            restored(vectors)
