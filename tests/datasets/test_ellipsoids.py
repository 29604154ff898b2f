"""Ellipsoid phantoms against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deft_ct.datasets.ellipsoids import Ellipsoid, EllipsoidPhantom
from deft_ct.operators.ct.rays import Rays

CENTER, AXES, ANGLE = (4.0, -6.0, 2.0), (12.0, 5.0, 3.0), 0.5
TURNED = Ellipsoid(center_mm=CENTER, semi_axes_mm=AXES, value=0.02, angle=ANGLE)
LONG, SHORT = np.array([math.cos(ANGLE), math.sin(ANGLE), 0.0]), np.array([-math.sin(ANGLE), math.cos(ANGLE), 0.0])


def ray(through: np.ndarray, direction: np.ndarray) -> Rays:
    """One ray, from a point far behind."""
    return Rays(origin=(through - 100.0 * direction)[None, None], direction=direction[None, None])


@pytest.mark.parametrize(("direction", "chord"), [(LONG, 24.0), (SHORT, 10.0), (np.array([0.0, 0.0, 1.0]), 6.0)])
def test_the_turn_is_counter_clockwise_from_x(direction: np.ndarray, chord: float) -> None:
    """Rays along the axes through the centre see twice the semi-axes, and half of them at half way, times sqrt(3)."""
    np.testing.assert_allclose(TURNED.chords(ray(np.array(CENTER), direction)), chord)
    other = LONG if abs(direction @ LONG) < 0.5 else SHORT
    off = np.array(CENTER) + other * (AXES[0] if other is LONG else AXES[1]) / 2
    np.testing.assert_allclose(TURNED.chords(ray(off, direction)), chord * math.sqrt(3) / 2)
    far = np.array(CENTER) + other * 12.1
    np.testing.assert_array_equal(TURNED.chords(ray(far, direction)), 0.0)


def test_the_unit_ball_is_at_the_ends_of_the_axes() -> None:
    ends = np.stack([np.array(CENTER) + 12 * LONG, np.array(CENTER) + 5 * SHORT, (4.0, -6.0, 5.0)])
    np.testing.assert_allclose(TURNED.normalised(ends), np.eye(3), atol=1e-12)


def test_a_volume_has_the_integral_and_the_place_of_the_ellipsoid() -> None:
    phantom = EllipsoidPhantom(
        (TURNED, Ellipsoid(center_mm=(-9.0, 8.0, -3.0), semi_axes_mm=(3.0, 3.0, 3.0), value=0.05))
    )
    volume = phantom.volume((16, 40, 44), (1.0, 1.0, 1.0)).numpy()
    masses = 0.02 * 4 / 3 * math.pi * 12 * 5 * 3, 0.05 * 4 / 3 * math.pi * 27
    assert volume.sum() == pytest.approx(sum(masses), rel=0.01)
    z, row, column = np.meshgrid(np.arange(16) - 7.5, 19.5 - np.arange(40), np.arange(44) - 21.5, indexing="ij")
    for axis, place in enumerate((column, row, z)):
        expected = masses[0] * CENTER[axis] + masses[1] * (-9.0, 8.0, -3.0)[axis]
        assert (volume * place).sum() == pytest.approx(expected, abs=0.1 * sum(masses))  # 0.1 mm
    only = EllipsoidPhantom((TURNED,)).volume((16, 40, 44), (1.0, 1.0, 1.0)).numpy()
    covariance = (only * (column - CENTER[0]) * (row - CENTER[1])).sum() / only.sum()
    assert covariance == pytest.approx((144 - 25) / 5 * math.sin(ANGLE) * math.cos(ANGLE), rel=0.03)


def test_line_integrals_add_up() -> None:
    ball = Ellipsoid(center_mm=(0.0, 0.0, 0.0), semi_axes_mm=(10.0, 10.0, 10.0), value=0.02)
    hole = Ellipsoid(center_mm=(0.0, 0.0, 0.0), semi_axes_mm=(4.0, 4.0, 4.0), value=-0.01)
    y = EllipsoidPhantom((ball, hole)).line_integrals(ray(np.zeros(3), LONG))
    assert y.shape == (1, 1) and float(y) == pytest.approx(20 * 0.02 - 8 * 0.01)


def test_the_head_is_that_of_shepp_and_logan_in_its_cube() -> None:
    phantom = EllipsoidPhantom.head(200.0)
    assert len(phantom.parts) == 8
    for part in phantom.parts:
        assert all(abs(c) + a <= 100 for c, a in zip(part.center_mm, part.semi_axes_mm, strict=True))
    along_y = float(phantom.line_integrals(ray(np.array([0.0, 0.0, 80.0]), np.array([0.0, 1.0, 0.0]))))
    shell = 2 * 90 * math.sqrt(1 - (80 / 85) ** 2) * 0.036  # the inner body ends at 80 mm
    assert along_y == pytest.approx(shell)
    middle = phantom.line_integrals(ray(np.array([-70.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])))
    assert float(middle) == pytest.approx(2 * 90 * math.sqrt(1 - (70 / 72) ** 2) * 0.036)


@pytest.mark.parametrize("axes", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, math.nan)])
def test_axes_that_are_none(axes: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="semi_axes_mm must be > 0"):
        Ellipsoid(center_mm=(0.0, 0.0, 0.0), semi_axes_mm=axes, value=1.0)
