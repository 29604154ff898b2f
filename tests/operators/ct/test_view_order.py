"""The order of the views by angle: the same set of views gives the same rows, whatever order they were taken in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.view_order import distinct_views, view_order
from deft_ct.operators.row_order import RowOrder

GOLDEN = math.pi / ((1 + 5**0.5) / 2)


def parallel(angles, **changes) -> ParallelGeometry:
    return ParallelGeometry(image_shape=(16, 16), pixel_mm=2.0, angles=angles, detectors=24, detector_mm=2.0, **changes)


def fan(angles) -> FanGeometry:
    return FanGeometry.for_image((16, 16), 2.0, 4, source_to_center_mm=100, source_to_detector_mm=200).replace(
        angles=angles
    )


def sinogram(geometry) -> torch.Tensor:
    image = torch.zeros(1, 1, 16, 16)
    image[..., 2:9, 6:13] = 0.02
    image[..., 10:12, 3:5] = 0.05
    return RayTransform(geometry)(image)


def arranged(geometry) -> torch.Tensor:
    order = view_order(geometry)
    return sinogram(geometry) if order is None else order.arrange(sinogram(geometry))


def arc(views, degrees, start=0.0):
    return np.radians(start + degrees * np.arange(views) / views)


@pytest.mark.parametrize("start", [0.0, 10.0, -90.0, 200.0])
@pytest.mark.parametrize(("kind", "degrees"), [(parallel, 180), (parallel, 120), (fan, 360), (fan, 200)])
def test_views_that_are_in_order_stay(kind, degrees, start):
    assert view_order(kind(arc(20, degrees, start))) is None


@pytest.mark.parametrize(
    ("kind", "degrees", "start"), [(parallel, 180, 10), (parallel, 120, 150), (fan, 360, 40), (fan, 200, 300)]
)
def test_shuffled_views_are_put_back(kind, degrees, start):
    angles = arc(20, degrees, start)
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(angles)
        torch.testing.assert_close(arranged(kind(shuffled)), sinogram(kind(angles)))
    torch.testing.assert_close(arranged(kind(angles[::-1])), sinogram(kind(angles)))


def test_golden_angles_are_the_sorted_half_turn():
    angles = GOLDEN * np.arange(21)
    assert angles.max() > 4 * math.pi
    torch.testing.assert_close(arranged(parallel(angles)), sinogram(parallel(np.sort(angles % math.pi))))
    torch.testing.assert_close(arranged(fan(angles)), sinogram(fan(np.sort(angles % (2 * math.pi)))))


def test_an_arc_whose_angles_wrap_starts_after_its_gap():
    angles = arc(20, 90, 150)
    torch.testing.assert_close(arranged(parallel(angles % math.pi)), sinogram(parallel(angles)))
    turned = arc(30, 200, 300)
    torch.testing.assert_close(arranged(fan(turned % (2 * math.pi))), sinogram(fan(turned)))


def test_a_detector_off_the_axis_is_not_read_backwards():
    geometry = parallel(arc(20, 360), detector_offset_mm=0.5)
    assert view_order(geometry) is None
    assert any(view_order(parallel(arc(20, 360))).backwards)


@pytest.mark.parametrize("angles", [arc(20, 360), GOLDEN * np.arange(20), np.zeros(3), np.array([1.0])])
def test_it_is_undone_to_the_bit(angles):
    order = view_order(parallel(angles))
    y = torch.randn(2, 1, len(angles), 24)
    assert order is None or torch.equal(order.restore(order.arrange(y)), y)


def test_views_that_repeat_count_once():
    assert distinct_views(parallel(arc(60, 180))) == 60
    assert distinct_views(parallel(arc(60, 360))) == 30
    assert distinct_views(parallel(arc(61, 360))) == 61
    assert distinct_views(parallel(GOLDEN * np.arange(60))) == 60
    assert distinct_views(fan(arc(60, 360))) == 60
    assert distinct_views(fan(np.concatenate([arc(30, 360), 2 * math.pi + arc(30, 360)]))) == 30
    assert distinct_views(parallel(np.zeros(4))) == 1
    assert distinct_views(parallel([0.0, 1.0, math.pi - 1e-6])) == 2, "the last view is the first one again"
    assert distinct_views(fan([0.0, 1.0, 2 * math.pi - 1e-6])) == 2
    # A thousandth of the usual step apart they differ.
    assert [distinct_views(parallel([0.0, 1.0, k * math.pi / 3000])) for k in (0.9, 1.1)] == [2, 3]


def test_operators_pass_it_on():
    shuffled = RayTransform(parallel(arc(20, 180)[::-1]))
    assert (2.0 * shuffled).row_order() == shuffled.row_order() != None  # noqa: E711
    assert RayTransform(ConeGeometry.for_image((4, 8, 8), 1.0, 6)).row_order() is None


@pytest.mark.parametrize(("rows", "backwards"), [((0, 0), (False, False)), ((0, 1), (False,))])
def test_it_must_be_a_permutation(rows, backwards):
    with pytest.raises(ValueError, match="permutation"):
        RowOrder(rows, backwards)
