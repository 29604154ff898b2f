"""Weights of views and rays in filtered back-projection, so that every line counts once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from deft_ct.operators.ct.geometry import FanGeometry, PlanarGeometry
from deft_ct.operators.ct.rays import Array

_MISSING = 3.5  # a gap of so many median steps is a missing wedge; golden-angle orders stay below 2.7


class Coverage(NamedTuple):
    """How the views cover the circle.

    Attributes:
        steps: ``(views,)`` angle that each view stands for, radians.
        phase: ``(views,)`` angle from the start of the covered arc.
        arc: length of the covered arc, the period when nothing is missing.
        full: whether the whole period is covered.
    """

    steps: Array
    phase: Array
    arc: float
    full: bool


def angular_coverage(angles: Array, period: float) -> Coverage:
    """Find the covered arc and the share of each view, for views in any order."""
    position = np.mod(angles, period)
    order = np.argsort(position, kind="stable")
    gaps = np.diff(position[order], append=position[order[0]] + period)
    step = float(np.median(gaps[gaps > 1e-9]))
    missing = gaps > _MISSING * step
    after = np.where(missing, step, gaps)
    steps = np.empty_like(after)
    steps[order] = 0.5 * (after + np.roll(after, 1))
    full = not bool(missing.any())
    phase = position
    if not full:  # the covered arc starts half a step before the view that follows the largest gap
        first = position[order[(int(np.argmax(gaps)) + 1) % len(order)]]
        phase = np.mod(position - first + 1e-9, period) + 0.5 * step
    return Coverage(steps, phase, float(after.sum()), full)


def angular_range(geometry: PlanarGeometry) -> float:
    """Angle that the views cover, radians: at most pi for parallel beams, whose views repeat then, 2 pi for a fan.

    It is the period less what the widest gap between views has over the usual one, for views in any order.
    """
    _, gaps, period = _gaps(geometry)
    return float(period - gaps.max() + np.median(gaps[gaps > 1e-9]))


def missing_fraction(geometry: PlanarGeometry) -> float:
    """Share of the lines through the circle inscribed in the image that no view measures, from 0 to 1.

    Parallel beams over an arc ``A`` miss ``1 - A / pi``. A fan with its source at ``R`` measures lines at distance
    ``R sin g`` from the axis from both ends, as ray ``g`` of one view and ray ``-g`` of another. These have the
    directions ``[-g, A - g]`` and ``[pi + g, pi + g + A]``; the gaps between the two arcs, ``pi + 2 g - A`` and
    ``pi - 2 g - A`` where positive, are missing. The mean over the distance is zero from ``A = pi + 2 g`` on, with
    ``g`` the half-angle of the circle (a short scan), and ``1 - A / pi`` below ``pi - 2 g``.

    Args:
        geometry: the scan; of its arc, :func:`angular_range`. Lines outside the detector are left out.
    """
    arc = angular_range(geometry)
    if not isinstance(geometry, FanGeometry):
        return 1 - arc / math.pi
    lateral, reach = _lateral(geometry)
    sides = -float(lateral[0]), float(lateral[-1])
    distance = math.sin(max(0.0, min(reach, max(sides)))) * (np.arange(256) + 0.5) / 256
    gamma = np.arcsin(distance)
    gaps = np.maximum(math.pi + 2 * gamma - arc, 0) + np.maximum(math.pi - 2 * gamma - arc, 0)
    one_end = 2 * math.pi - arc  # a detector cut off on one side sees the outer lines from one end only
    missed = np.where(gamma <= min(sides), gaps, max(0.0, one_end))
    return float(missed.mean()) / (2 * math.pi)


def missing_direction(geometry: PlanarGeometry) -> float:
    """Middle of the directions of the lines that no view of a limited arc measures, radians in ``[0, pi)``.

    A line has the direction of the parallel view that contains it. For an arc with the middle ``m`` it is
    ``m + pi / 2``, for a fan as well, whose central rays these are. Without a meaning where nothing is missing.
    """
    position, gaps, period = _gaps(geometry)
    widest = int(gaps.argmax())
    arc = float(position[widest] + 0.5 * gaps[widest]) + 0.5 * period  # its middle is opposite that of the gap
    return (arc + 0.5 * math.pi) % math.pi


def _gaps(geometry: PlanarGeometry) -> tuple[Array, Array, float]:
    """Sorted angles of the views in one period, the gap after each, and the period."""
    period = 2 * math.pi if isinstance(geometry, FanGeometry) else math.pi
    position = np.sort(np.mod(geometry.angle_array, period))
    return position, np.diff(position, append=position[0] + period), period


def ray_weights(geometry: PlanarGeometry) -> Array:
    """Quadrature and redundancy weights of every ray, radians.

    A parallel scan is weighted by the share of each view in the half circle. A full fan scan counts every line twice
    and takes half; a short scan takes Parker's weights (Parker 1982, Med. Phys. 9, 254; Silver 2000 for overscan), a
    still shorter one the weights of Noo et al. (2002, Phys. Med. Biol. 47, 2525) where lines are measured twice. A full
    turn with a detector that is cut off on one side takes Wang's weights (2002, Med. Phys. 29, 1634).

    Args:
        geometry: the scan.

    Returns:
        ``(views, detectors)``.
    """
    lateral, reach = _lateral(geometry)
    turn = angular_coverage(geometry.angle_array, 2 * math.pi)
    one_sided = _one_sided_weights(lateral, reach) if turn.full else None
    if one_sided is not None:
        return 0.5 * turn.steps[:, None] * one_sided
    if not isinstance(geometry, FanGeometry):
        return np.repeat(angular_coverage(geometry.angle_array, math.pi).steps[:, None], geometry.detectors, 1)
    if turn.full:
        return np.repeat(0.5 * turn.steps[:, None], geometry.detectors, 1)
    return turn.steps[:, None] * _arc_weights(turn.phase[:, None], lateral[None, :], turn.arc)


def one_sided_padding(geometry: PlanarGeometry) -> tuple[int, int]:
    """Detector elements to add before and after, so that a detector cut off on one side becomes symmetric."""
    lateral, reach = _lateral(geometry)
    full = angular_coverage(geometry.angle_array, 2 * math.pi).full
    if not full or _one_sided_weights(lateral, reach) is None:
        return 0, 0
    longer = (float(lateral[-1]) + float(lateral[0])) / float(lateral[1] - lateral[0])  # after the axis, in elements
    missing = math.ceil(abs(longer) - 1e-6)
    return (missing, 0) if longer > 0 else (0, missing)


def _lateral(geometry: PlanarGeometry) -> tuple[Array, float]:
    """Distance of each ray from the rotation axis (fan: angle at the source), and the same for the inscribed circle."""
    radius = 0.5 * min(n * d for n, d in zip(geometry.image_shape, geometry.pixel_rc, strict=True))
    if isinstance(geometry, FanGeometry):
        to_axis = math.hypot(geometry.source_to_center_mm, geometry.axis_offset_mm)
        tilt = math.atan2(geometry.axis_offset_mm, geometry.source_to_center_mm)
        return geometry.fan_angles - tilt, math.asin(min(1.0, radius / to_axis))
    return geometry.detector_positions - geometry.axis_offset_mm, radius


def _one_sided_weights(lateral: Array, reach: float) -> Array | None:
    """Weights ``w(l) + w(-l) = 2`` where both sides are measured, if one side of the detector is cut off."""
    low, high = -float(lateral[0]), float(lateral[-1])
    overlap = min(low, high)
    if overlap >= 0.98 * reach or max(low, high) <= 1.02 * overlap:
        return None
    if overlap <= 0:
        raise ValueError("the detector does not reach the rotation axis: filtered back-projection cannot cover it")
    weights: Array = 1 + np.sin(0.5 * math.pi * np.clip(lateral / overlap, -1, 1))
    return weights if high > low else 2 - weights


def _arc_weights(phase: Array, gamma: Array, arc: float) -> Array:
    """Weights of rays of an arc below a full turn; the twin of a ray is ``(phase +- pi - 2 gamma, -gamma)``."""
    spare = 0.5 * (arc - math.pi)
    if spare >= float(np.abs(gamma).max()) * (1 - 1e-6):
        rise = 0.25 * math.pi * phase / np.maximum(spare + gamma, 1e-12)
        fall = 0.25 * math.pi * (arc - phase) / np.maximum(spare - gamma, 1e-12)
        weights: Array = np.where(phase < 2 * (spare + gamma), np.sin(rise) ** 2, 1.0)
        return np.where(phase > math.pi + 2 * gamma, np.sin(fall) ** 2, weights)
    width = min(math.radians(10), 0.25 * arc)

    def window(at: Array) -> Array:
        inside = np.clip(np.minimum(at, arc - at) / width, 0, 1)
        return np.asarray(np.sin(0.5 * math.pi * inside) ** 2)

    own = window(phase)
    twins = window(phase + math.pi - 2 * gamma) + window(phase - math.pi - 2 * gamma)
    return np.asarray(own / np.maximum(own + twins, 1e-12))
