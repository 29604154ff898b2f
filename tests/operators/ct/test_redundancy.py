"""What a scan misses, counted line by line."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from deft_ct.operators.ct import FanGeometry, ParallelGeometry
from deft_ct.operators.ct.redundancy import missing_fraction

TO_CENTER, RADIUS = 60.0, 16.0


def fan(degrees: float, **changes: float) -> FanGeometry:
    """A fan around an image with an inscribed circle of 16 mm."""
    whole = FanGeometry.for_image((32, 32), 1.0, 90, source_to_center_mm=TO_CENTER, source_to_detector_mm=100.0)
    return whole.replace(angular_range=math.radians(degrees), **changes)


def counted(degrees: float, count: int = 200_000) -> float:
    """Share of random lines through the circle that pass no source position of the arc."""
    rng = np.random.default_rng(0)
    turn, distance = rng.uniform(0, 2 * math.pi, count), rng.uniform(-RADIUS, RADIUS, count)
    normal = np.stack([np.cos(turn), np.sin(turn)], -1)
    along = np.stack([-normal[:, 1], normal[:, 0]], -1)
    half = np.sqrt(TO_CENTER**2 - distance**2)
    seen = np.zeros(count, bool)
    for sign in (-1, 1):  # the two points where a line crosses the circle of the source
        point = distance[:, None] * normal + sign * half[:, None] * along
        view = np.mod(np.arctan2(point[:, 0], -point[:, 1]), 2 * math.pi)  # the source of view b: (sin b, -cos b)
        seen |= view < math.radians(degrees)
    return 1 - float(seen.mean())


@pytest.mark.parametrize("degrees", [60, 100, 150, 170, 180, 190, 200, 210])
def test_lines_that_no_source_position_sees_are_missing(degrees: float) -> None:
    assert missing_fraction(fan(degrees)) == pytest.approx(counted(degrees), abs=3e-3)


def test_a_short_scan_misses_nothing() -> None:
    opening = 2 * math.degrees(math.asin(RADIUS / TO_CENTER))
    assert missing_fraction(fan(180 + opening + 0.01)) == 0
    assert missing_fraction(fan(180 + opening - 3)) > 0
    assert missing_fraction(fan(300)) == missing_fraction(fan(360)) == 0


@pytest.mark.parametrize("degrees", [90, 101.3, 120, 180])
def test_parallel_beams_miss_the_rest_of_half_a_turn(degrees: float) -> None:
    geometry = ParallelGeometry.for_image((32, 32), 1.0, 60).replace(angular_range=math.radians(degrees))
    assert missing_fraction(geometry) == pytest.approx(1 - degrees / 180, abs=1e-12)


def test_half_a_detector_misses_nothing_in_a_full_turn_and_much_in_a_short_one() -> None:
    half = {"detector_offset_mm": fan(360).detectors * fan(360).detector_mm / 2}
    assert missing_fraction(fan(360, **half)) == pytest.approx(0, abs=1e-9)
    assert missing_fraction(fan(240, **half)) == pytest.approx(1 / 3, abs=0.02)  # each line from one end alone


@pytest.mark.parametrize("degrees", [60, 150, 165, 180, 200])
def test_the_missing_share_is_the_integral_over_the_distance(degrees: float) -> None:
    """Of lines at the distance ``R sin g`` the gaps between both arcs of directions are missing."""
    arc = math.radians(degrees)

    def missing(distance: float) -> float:
        g = math.asin(distance / TO_CENTER)
        return (max(0.0, math.pi + 2 * g - arc) + max(0.0, math.pi - 2 * g - arc)) / (2 * math.pi)

    bends = [TO_CENTER * math.sin(abs(arc - math.pi) / 2)]
    expected = quad(missing, 0, RADIUS, points=[b for b in bends if 0 < b < RADIUS], epsabs=1e-10)[0] / RADIUS
    assert missing_fraction(fan(degrees)) == pytest.approx(expected, abs=2e-6)
