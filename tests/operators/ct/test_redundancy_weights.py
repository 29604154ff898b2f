"""Every line is counted once: the weights of both ends of a line add up, and are those of the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deft_ct.operators.ct import FanGeometry, ParallelGeometry
from deft_ct.operators.ct.redundancy import one_sided_padding, ray_weights

COUNT, STEP = 180, math.pi / 180  # views of a half turn, so that the twin of a ray is a ray of another view


def curved(views: int, detectors: int, offset: float = 0.0) -> FanGeometry:
    """Rays half a view apart."""
    return FanGeometry(
        image_shape=(32, 32), pixel_mm=1.0, angles=STEP * np.arange(views), detectors=detectors, detector="curved",
        detector_mm=100 * STEP / 2, detector_offset_mm=offset * 100 * STEP / 2, source_to_center_mm=60,
        source_to_detector_mm=100,
    )  # fmt: skip


def twins(geometry: FanGeometry, weights: np.ndarray) -> list[tuple[float, float | None]]:
    """The relative weight of each ray, and that of its twin if it is measured."""
    found = []
    middle = (geometry.detectors - 1) // 2
    for view in range(len(weights)):
        for ray in range(geometry.detectors):
            k = round(float(geometry.fan_angles[ray]) / (STEP / 2))  # the fan angle is k half steps
            others = [v for v in (view + COUNT - k, view - COUNT - k) if 0 <= v < len(weights)]
            other = [weights[v, 2 * middle - ray] for v in others]
            found.append((float(weights[view, ray]), float(other[0]) if other else None))
    return found


@pytest.mark.parametrize("views", [200, 240, 300])
def test_two_ends_of_a_line_count_once(views: int) -> None:
    """200 and 240 views are less than a short scan of this fan of 90 degrees, 300 are more."""
    geometry = curved(views, 181)
    weights = ray_weights(geometry) / STEP
    assert float(weights.min()) >= 0
    sums = [own + twin for own, twin in twins(geometry, weights) if twin is not None]
    alone = [own for own, twin in twins(geometry, weights) if twin is None]
    np.testing.assert_allclose(sums, 1, rtol=1e-9)
    np.testing.assert_allclose(alone, 1, rtol=1e-9)


@pytest.mark.parametrize("views", [20, 200, 260])
def test_an_arc_too_short_for_parker_shares_a_line_by_windows(views: int) -> None:
    """A second program for the weights of Noo et al.: a window that falls to zero over 10 degrees, or a quarter arc."""
    geometry = curved(views, 181)
    arc = views * STEP
    width = min(math.radians(10), arc / 4)

    def window(phase: float) -> float:
        if not 0 < phase < arc:
            return 0.0
        rest = min(phase, arc - phase)
        return math.sin(math.pi / 2 * rest / width) ** 2 if rest < width else 1.0

    expected = np.empty((views, geometry.detectors))
    for view in range(views):
        for ray, gamma in enumerate(geometry.fan_angles):
            phase = (view + 0.5) * STEP
            twin = sum(window(phase + turn - 2 * gamma) for turn in (math.pi, -math.pi))
            expected[view, ray] = window(phase) / (window(phase) + twin)
    np.testing.assert_allclose(ray_weights(geometry) / STEP, expected, atol=1e-6)


@pytest.mark.parametrize("views", [271, 300])
def test_a_short_scan_takes_parkers_weights(views: int) -> None:
    """Parker's formula with Silver's overscan, line by line; of 90 degrees of fan a short scan has 270 degrees."""
    geometry = curved(views, 181)
    arc = views * STEP
    spare = (arc - math.pi) / 2  # half the fan angle in Parker's paper
    expected = np.empty((views, geometry.detectors))
    for view in range(views):
        for ray, gamma in enumerate(geometry.fan_angles):
            phase = (view + 0.5) * STEP
            if phase < 2 * (spare + gamma):
                expected[view, ray] = math.sin(math.pi / 4 * phase / (spare + gamma)) ** 2
            elif phase > math.pi + 2 * gamma:
                expected[view, ray] = math.sin(math.pi / 4 * (arc - phase) / (spare - gamma)) ** 2
            else:
                expected[view, ray] = 1
    np.testing.assert_allclose(ray_weights(geometry) / STEP, expected, atol=1e-6)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("fan", [True, False])
def test_a_detector_cut_off_on_either_side_takes_wangs_weights(side: int, fan: bool) -> None:
    detectors, offset = 61, 20 * side
    if fan:
        geometry: FanGeometry | ParallelGeometry = curved(2 * COUNT, detectors, offset)
        lateral = (np.arange(61) - 30 + offset) * STEP / 2
    else:
        geometry = ParallelGeometry(
            image_shape=(96, 96), pixel_mm=1.0, views=2 * COUNT, angular_range=2 * math.pi, detectors=61,
            detector_mm=1.0, detector_offset_mm=float(offset),
        )  # fmt: skip
        lateral = np.arange(61) - 30.0 + offset
    overlap = min(abs(lateral[0]), abs(lateral[-1]))
    ramp = np.sin(math.pi / 2 * np.clip(side * lateral / overlap, -1, 1))
    weights = ray_weights(geometry) / STEP
    np.testing.assert_allclose(weights, np.broadcast_to(0.5 * (1 + ramp), weights.shape), rtol=1e-9, atol=1e-12)
    # Both ends of a line inside the overlap, from opposite views, count once together.
    inside = np.abs(lateral) <= overlap + 1e-9
    np.testing.assert_allclose(weights[0][inside] + weights[0][inside][::-1], 1, rtol=1e-9)


@pytest.mark.parametrize(("offset", "padding"), [(20.0, 40), (20.3, 41), (19.9, 40)])
def test_a_detector_cut_off_is_made_symmetric(offset: float, padding: int) -> None:
    """61 elements from -30 + o to 30 + o about the axis lack ``2 o`` on the other side."""
    for fan in (True, False):
        for side in (1, -1):
            geometry: FanGeometry | ParallelGeometry = curved(2 * COUNT, 61, side * offset)
            if not fan:
                geometry = ParallelGeometry(
                    image_shape=(96, 96), pixel_mm=1.0, views=2 * COUNT, angular_range=2 * math.pi, detectors=61,
                    detector_mm=1.0, detector_offset_mm=side * offset,
                )  # fmt: skip
            assert one_sided_padding(geometry) == ((padding, 0) if side > 0 else (0, padding))
    assert one_sided_padding(curved(2 * COUNT, 61)) == (0, 0)
    assert one_sided_padding(curved(200, 61, 20)) == (0, 0), "a short scan measures no line from both sides"
