"""The views of a scan in the order of their angles, whatever order they were taken in."""

from __future__ import annotations

import math

import numpy as np

from deft_ct.operators.ct.geometry import ParallelGeometry, PlanarGeometry
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.row_order import RowOrder

_GAP = 3.5
"""A gap of so many median steps is a missing arc."""
_CENTRED = 0.01
"""Detector elements by which the middle of a detector may be off the axis and its rows still be read backwards."""
_SAME = 1e-9
"""Angles in radians that rounding may add."""


def view_order(geometry: PlanarGeometry) -> RowOrder | None:
    """The order of the views by angle.

    Views that span less than one period (half a turn of parallel beams, a turn of a fan) are sorted as they are.
    Others are brought into one period first. A parallel view that is half a turn away measures the same lines from the
    other end of the detector, so its row is read backwards. This needs a detector that is centred on the axis. Without
    it the period is a full turn. A limited arc starts after its gap.

    Args:
        geometry: the scan.

    Returns:
        The order; None when the views are in it already.
    """
    angles, period = geometry.angle_array, view_period(geometry)
    low = float(angles.min())
    first = (low if float(angles.max()) - low < period - _SAME else 0.0) - _SAME
    first += _start(np.mod(angles - first, period), period)
    place = np.mod(angles - first, period)
    rows = np.lexsort((angles, place))
    opposite = np.rint((angles - first - place) / math.pi)[rows] % 2 == 1  # never after whole turns
    if (rows == np.arange(len(rows))).all() and not opposite.any():
        return None
    return RowOrder(tuple(rows.tolist()), tuple(opposite.tolist()))


def view_period(geometry: PlanarGeometry) -> float:
    """Angle after which views repeat, radians: half a turn of parallel beams on a centred detector, else a turn."""
    middle = float(np.mean(geometry.detector_positions)) - geometry.axis_offset_mm
    centred = abs(middle) <= _CENTRED * geometry.detector_mm
    return math.pi if isinstance(geometry, ParallelGeometry) and centred else 2 * math.pi


def distinct_views(geometry: PlanarGeometry) -> int:
    """Number of views that differ: a repeated angle, or the opposite view of parallel beams, adds no lines."""
    period = view_period(geometry)
    place = np.sort(np.mod(geometry.angle_array, period))
    gaps = np.diff(place, append=place[0] + period)
    return int((gaps > 1e-3 * period / len(place)).sum())


def _start(place: Array, period: float) -> float:
    """Where the arc starts: after the widest gap if that is a missing arc in the middle, else at zero."""
    ordered = np.sort(place)
    gaps = np.diff(ordered)
    if not (gaps > _SAME).any():
        return 0.0
    widest = int(gaps.argmax())
    around = float(ordered[0]) + period - float(ordered[-1])
    step = float(np.median(gaps[gaps > _SAME]))
    missing = gaps[widest] > _GAP * step and gaps[widest] > around
    return float(ordered[widest + 1]) if missing else 0.0
