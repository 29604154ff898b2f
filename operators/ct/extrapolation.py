"""Truncated projections continued beyond the detector, so that filtered back-projection does not see a step.

The filter spreads the step at a cut edge over the whole image: a bright rim, and CT numbers that are wrong by tens of
HU. Each row is continued on either side by the projection of an ellipse about the middle of the detector, which has the
value and the slope of the row at its edge. That is the water cylinder of Hsieh et al. (2004, Med. Phys. 31, 2385), of a
density that follows from the row. What was beyond the detector is not recovered.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry

REACH = 0.5
"""Length of the continuation on either side, in widths of the detector, at most."""
_EDGE, _LEAST = 0.08, 4
"""Share of the detector, and number of its elements at least, from which value and slope follow."""
_LARGEST_FAN = math.radians(80)


def continue_rows(
    sinogram: Tensor, geometry: ParallelGeometry | FanGeometry, reach: float = REACH
) -> tuple[Tensor, ParallelGeometry | FanGeometry]:
    """Line integrals on a wider detector.

    Args:
        sinogram: ``(..., views, detectors)`` line integrals.
        geometry: the scan.
        reach: see :data:`REACH`; less where a curved detector would go round the source.

    Returns:
        ``(..., views, wider)``, and the scan with as many elements. The elements of the old detector are in the middle
        and keep their values and places.

    Raises:
        ValueError: ``reach`` is not in (0, 1].
    """
    if not 0 < reach <= 1:
        raise ValueError(f"reach must lie in (0, 1], got {reach}")
    detectors = geometry.detectors
    more = min(detectors - 1, math.ceil(reach * detectors))
    if isinstance(geometry, FanGeometry) and geometry.detector == "curved":
        room = _LARGEST_FAN * geometry.source_to_detector_mm - float(abs(geometry.detector_positions).max())
        more = max(0, min(more, math.floor(room / geometry.detector_mm)))
    right = _continuation(sinogram, more)
    left = _continuation(sinogram.flip(-1), more).flip(-1)
    return torch.cat([left, sinogram, right], -1), geometry.replace(detectors=detectors + 2 * more)


def _continuation(rows: Tensor, count: int) -> Tensor:
    """``(..., count)`` readings that follow the last of ``(..., detectors)``.

    A projection ``p`` of an ellipse has ``p^2 = a^2 (r^2 - x^2)``. Here ``x`` is 1 at the edge of the detector, where a
    line fitted to ``p^2`` gives the value ``q`` and the slope ``-2 a^2``.
    """
    detectors = rows.shape[-1]
    used = min(detectors, max(_LEAST, math.ceil(_EDGE * detectors)))
    at = (torch.arange(used, dtype=rows.dtype, device=rows.device) - (used - 1)) * (2 / detectors)  # from the edge
    squares = rows[..., -used:].clamp_min(0).square()
    mean, middle = squares.mean(-1), at.mean()
    slope = ((squares - mean[..., None]) * (at - middle)).sum(-1) / (at - middle).square().sum()
    value = (mean - slope * middle).clamp_min(0)
    tiny = torch.finfo(rows.dtype).eps
    squared_radius = 1 + value / (-slope / 2).clamp_min(tiny)
    end = 1 + 2 * max(1, count - _LEAST) / detectors  # a few elements of air, where nothing looks truncated any more
    squared_radius = squared_radius.clamp_max(end**2)
    density = value / (squared_radius - 1).clamp_min(tiny)
    beyond = 1 + torch.arange(1, count + 1, dtype=rows.dtype, device=rows.device) * (2 / detectors)
    return (density[..., None] * (squared_radius[..., None] - beyond.square())).clamp_min(0).sqrt()
