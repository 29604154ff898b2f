"""Rays as lines, and their Joseph coefficients: what every backend of our own starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Rays:
    """One line for each detector element of each view, in mm.

    The axes are x to the right (columns) and y up (row 0 is at the top), the origin is the centre of the image.

    Attributes:
        origin: ``(views, detectors, 2)``, a point on the line: the source for divergent beams. In three dimensions
            ``(views, rows, columns, 3)``.
        direction: of the same shape, unit vectors from source to detector.
    """

    origin: Array
    direction: Array


@dataclass(frozen=True, kw_only=True)
class JosephRays:
    """Rays in pixel indices, for interpolation along the minor axis (Joseph 1982, IEEE Trans. Med. Imaging 1, 192).

    A ray meets row ``k`` (or column ``k`` where ``by_column``) at the minor-axis index ``start + slope * k``.

    Attributes:
        start: ``(rays,)`` minor-axis index at ``k = 0``.
        slope: ``(rays,)`` minor-axis step for each ``k``, at most 1 in absolute value for square pixels.
        weight: ``(rays,)`` length of the ray between two neighbouring ``k``, mm.
        by_column: ``(rays,)`` whether the major axis is that of the columns.
        first: ``(rays,)`` first ``k`` on which the ray is less than one cell away from the image.
        last: ``(rays,)`` one more than the last such ``k``; equal to ``first`` for a ray that misses the image.
    """

    start: Array
    slope: Array
    weight: Array
    by_column: NDArray[np.bool_]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


def joseph_rays(rays: Rays, image_shape: tuple[int, int], pixel_mm: tuple[float, float]) -> JosephRays:
    """Convert lines in mm to pixel indices and pick each ray's major axis.

    Args:
        rays: the lines.
        image_shape: (rows, columns).
        pixel_mm: (row spacing, column spacing).
    """
    (height, width), (pitch_y, pitch_x) = image_shape, pixel_mm
    origin, direction = rays.origin.reshape(-1, 2), rays.direction.reshape(-1, 2)
    column = origin[:, 0] / pitch_x + (width - 1) / 2
    row = (height - 1) / 2 - origin[:, 1] / pitch_y
    d_column, d_row = direction[:, 0] / pitch_x, -direction[:, 1] / pitch_y
    by_column = np.abs(d_column) > np.abs(d_row)
    major, minor = np.where(by_column, column, row), np.where(by_column, row, column)
    d_major, d_minor = np.where(by_column, d_column, d_row), np.where(by_column, d_row, d_column)
    slope = d_minor / d_major
    start = minor - slope * major
    lines, cells = np.where(by_column, width, height), np.where(by_column, height, width)
    first, last = _line_range(start, slope, lines, cells)
    return JosephRays(start=start, slope=slope, weight=1 / np.abs(d_major), by_column=by_column, first=first, last=last)


def _line_range(
    start: Array, slope: Array, lines: NDArray[np.int64], cells: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where ``-1 < start + slope * k < cells``; the weight vanishes at both ends, so rounding there is harmless."""
    flat = np.abs(slope) < 1e-12
    inside = (start > -1) & (start < cells)
    divisor: Array = np.where(flat, 1.0, slope)
    enter, leave = (-1 - start) / divisor, (cells - start) / divisor
    low = np.where(flat, np.where(inside, -1, lines), np.minimum(enter, leave))
    high = np.where(flat, np.where(inside, lines, -1), np.maximum(enter, leave))
    first = np.clip(np.ceil(low + 1e-9), 0, lines).astype(np.int64)
    last = np.clip(np.floor(high - 1e-9) + 1, 0, lines).astype(np.int64)
    return first, np.maximum(first, last)


@dataclass(frozen=True, kw_only=True)
class JosephRays3D:
    """Rays through a volume in voxel indices (z, row, column).

    On line ``k`` of the major axis the ray is at ``start + slope * k`` on each of the two minor ones.

    Attributes:
        axes: ``(rays, 3)`` the major axis, then the two minor ones in ascending order.
        start: ``(rays, 2)``.
        slope: ``(rays, 2)``.
        weight: ``(rays,)`` length of the ray between two neighbouring ``k``, mm.
        first: ``(rays,)`` first ``k`` on which the ray is less than one voxel away from the volume.
        last: ``(rays,)`` one more than the last such ``k``.
    """

    axes: NDArray[np.int64]
    start: Array
    slope: Array
    weight: Array
    first: NDArray[np.int64]
    last: NDArray[np.int64]


def joseph_rays_3d(
    rays: Rays, image_shape: tuple[int, int, int], voxel_zyx: tuple[float, float, float]
) -> JosephRays3D:
    """:func:`joseph_rays` for volumes ``(slices, rows, columns)`` with spacings in the same order."""
    shape, spacing = np.array(image_shape), np.array(voxel_zyx)
    signs = np.array([1.0, -1.0, 1.0])  # rows count downwards
    origin = (shape - 1) / 2 + signs * rays.origin.reshape(-1, 3)[:, ::-1] / spacing
    direction = signs * rays.direction.reshape(-1, 3)[:, ::-1] / spacing
    major = np.argmax(np.abs(direction), axis=1)
    axes = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1]])[major]
    d, o = np.take_along_axis(direction, axes, 1), np.take_along_axis(origin, axes, 1)
    slope = d[:, 1:] / d[:, :1]
    start = o[:, 1:] - slope * o[:, :1]
    lines = shape[axes[:, 0]]
    ranges = [_line_range(start[:, m], slope[:, m], lines, shape[axes[:, 1 + m]]) for m in range(2)]
    first = np.maximum(ranges[0][0], ranges[1][0])
    last = np.maximum(first, np.minimum(ranges[0][1], ranges[1][1]))
    return JosephRays3D(axes=axes, start=start, slope=slope, weight=1 / np.abs(d[:, 0]), first=first, last=last)
