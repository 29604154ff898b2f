"""Both sides of the thresholds of scans: gaps between views, focal spots, flat bodies and rounding."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.operators.ct import ParallelGeometry, RayTransform, _checks, align_scan, alignment
from deft_ct.operators.ct.convert import from_astra, to_astra, to_odl
from deft_ct.operators.ct.helix import HelicalScan
from deft_ct.operators.ct.redundancy import angular_coverage
from deft_ct.operators.ct.view_order import view_order
from deft_ct.operators.points.motif import Motif

SMALL = ParallelGeometry.for_image((16, 16), 1.0, 20)


def arc(degrees: float) -> tuple[ParallelGeometry, torch.Tensor]:
    geometry = SMALL.replace(views=20, angular_range=math.radians(degrees))
    x = torch.zeros(16, 16, dtype=torch.float64)
    x[4:11, 5:13] = 0.02
    return geometry, RayTransform(geometry)(x)


@pytest.mark.parametrize(("degrees", "told"), [(119.0, True), (120.0, False)])
def test_the_centre_needs_views_over_120_degrees(degrees: float, told: bool) -> None:
    geometry, y = arc(degrees)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        align_scan(y, geometry, levels=(2,), iterations=1)
    assert [f"the views cover {degrees:.0f} degrees; below 120" in str(w.message) for w in caught] == [True] * told


def test_sixty_steps_of_conjugate_gradients_solve_each_system(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry, y = arc(180.0)
    steps: list[int] = []
    solve = alignment.conjugate_gradient

    def counted(*arguments: Any, **options: Any) -> Any:
        steps.append(options["iterations"])
        return solve(*arguments, **options)

    monkeypatch.setattr(alignment, "conjugate_gradient", counted)
    found = align_scan(y, geometry, levels=(2,), iterations=3)
    assert steps == [60] * (1 + len(found.residual)) and len(found.residual) <= 3


@pytest.mark.parametrize(("change", "message"), [
    ({"smoothness": 0.0}, "smoothness must be finite and > 0, got 0.0"), ({"smoothness": math.nan}, "smoothness"),
    ({"smoothness": math.inf}, "smoothness must be finite"), ({"angle_error": -1.0}, "angle_error must be finite"),
    ({"iterations": 0}, "iterations must be >= 1, got 0"), ({"levels": ()}, "levels must be integers >= 1"),
    ({"levels": (2, 0)}, "levels must be integers >= 1"), ({"levels": (True,)}, "levels must be integers >= 1"),
    ({"levels": (2.0,)}, "levels must be integers >= 1"), ({"levels": (7,)}, "must not exceed a quarter of the 24"),
    ({"parameters": ()}, "parameters must be some of"), ({"parameters": ("angles", "angles")}, "each once"),
])  # fmt: skip
def test_options_of_the_alignment_that_are_refused(change: dict[str, Any], message: str) -> None:
    geometry, y = arc(180.0)
    assert geometry.detectors == 24
    with pytest.raises(ValueError, match=message):
        align_scan(y, geometry, **{"levels": (2,), **change})
    for data in (torch.zeros_like(y), torch.full_like(y, math.inf)):
        with pytest.raises(ValueError, match="finite values that are not all zero"):
            align_scan(data, geometry)
    for wrong in (y.half(), y.numpy()):
        with pytest.raises(TypeError, match="sinogram must be a float32 or float64 torch tensor, got"):
            align_scan(wrong, geometry)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="geometry must be a ParallelGeometry or FanGeometry, got str"):
        align_scan(y, "parallel")  # type: ignore[arg-type]
    assert len(align_scan(y, geometry, "axis_offset_mm", levels=(6,), iterations=1).residual) == 1


@pytest.mark.parametrize(("gap", "missing"), [(3.45, False), (3.55, True)])
def test_a_gap_of_three_and_a_half_steps_is_a_missing_arc(gap: float, missing: bool) -> None:
    """In a half turn of twenty steps, of which fifteen views take fourteen on the two sides of the gap."""
    step = math.pi / 20
    places = np.concatenate([np.arange(8), 7 + gap + np.arange(8)]) * step
    assert places[-1] < math.pi and 20 - 14 - gap < gap
    order = view_order(SMALL.replace(angles=places))
    assert (order is not None) == missing
    if order is not None:
        assert order.rows == (*range(8, 16), *range(8))
    coverage = angular_coverage(places, math.pi)
    assert coverage.full == (not missing)
    assert coverage.arc == pytest.approx(math.pi - (gap - 1) * step * missing)


@pytest.mark.parametrize(("shift", "states"), [(0.049, 1), (0.051, 2)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_focal_spot_that_moves_by_a_twentieth_of_a_millimetre_moves(shift: float, states: int, axis: int) -> None:
    """Along the circle, of a radius of 400 mm, along the axis, and outwards."""
    shifts = np.zeros((12, 3))
    shifts[::2, axis] = shift / (400.0 if axis == 0 else 1.0)
    angles = np.arange(12) * 0.7
    scan = HelicalScan(
        angles=angles, z_mm=angles, radius_mm=np.full(12, 400.0), source_shifts=shifts, source_to_detector_mm=800.0,
        detectors=(2, 5), detector_mm=(1.0, 2.0), central=(0.5, 2.0),
    )  # fmt: skip
    assert scan.states() == states


@pytest.mark.parametrize(("extent", "flat"), [(0.9e-6, True), (1.1e-6, False)])
def test_a_body_on_a_line_has_no_rotation(extent: float, flat: bool) -> None:
    template = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0]], dtype=torch.float64)
    template = template * torch.tensor([1.0, extent, 1.0], dtype=torch.float64)
    if flat:
        with pytest.raises(ValueError, match="the points of a body lie on one line"):
            Motif(6, [0, 1, 2, 3], template)
    else:
        assert Motif(6, [0, 1, 2, 3], template).bodies == (4,)


@pytest.mark.parametrize(("excess", "more"), [(0.0, 0), (0.5e-9, 0), (2e-9, 1), (-0.5, 0)])
def test_rounding_adds_no_detector_element(excess: float, more: int) -> None:
    """The diagonal of 3 by 4 pixels is 5 mm: six elements a millimetre apart cover it."""
    geometry = ParallelGeometry(image_shape=(3, 4), pixel_mm=1.0 + excess / 5, views=3, detector_mm=1.0)
    assert geometry.detectors == geometry.covering_detectors == 6 + more


@pytest.mark.parametrize(("off", "refused"), [(0.9e-6, False), (1.1e-6, True)])
def test_an_image_may_be_off_the_axis_by_rounding(off: float, refused: bool) -> None:
    volume, projection = to_astra(SMALL)
    window = {**volume["option"], "WindowMinY": volume["option"]["WindowMinY"] + off}
    if refused:
        with pytest.raises(ValueError, match="the image must be centred on the rotation axis, but its centre is"):
            from_astra({**volume, "option": window}, projection)
    else:
        assert from_astra({**volume, "option": window}, projection).image_shape == (16, 16)


def test_angles_of_odl_ascend() -> None:
    pytest.importorskip("odl")
    for angles in ([0.1, 0.1], [0.2, 0.1], [0.1, 0.1 + 0.9e-9]):
        with pytest.raises(ValueError, match="ODL needs ascending angles"):
            to_odl(SMALL.replace(angles=angles))
    to_odl(SMALL.replace(angles=[0.1, 0.1 + 2e-9]))


def test_a_million_is_the_largest_count() -> None:
    assert _checks.count("views", 10**6) == 10**6 and _checks.count("views", np.int64(3)) == 3
    for value, error, message in (
        (10**6 + 1, ValueError, "views must be at most 1000000, got 1000001"), (0, ValueError, "must be >= 1, got 0"),
        (True, TypeError, "must be an integer, got True"), (2.0, TypeError, "must be an integer, got 2.0"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            _checks.count("views", value)
