"""Whether an object is wider than the detector that measured it.

A view is truncated when the edge of the detector sees the object instead of air. Filtered back-projection then makes a
bright rim, and CT numbers that are wrong by tens of HU in the middle of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deft_ct.operators.ct.system_matrix import Geometry

_EDGE = 2
"""Detector elements on either side whose mean is the reading of the edge."""
_LEAST_DETECTORS = 8
_AIR = 0.05
"""Share of the largest line integral up to which an edge may read without a warning: air is rarely exactly zero."""
_SIGNIFICANT = 5.0
"""Standard errors by which an edge must read more than that."""
_MEDIAN_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Truncation:
    """What the edges of a detector read.

    Attributes:
        views: share of the views in which an edge reads more than air, 0 to 1; of the slice that has most of them.
        level: largest reading of an edge in these views, as a share of the largest line integral of the slice.
    """

    views: float
    level: float


def truncation(sinogram: Tensor, geometry: Geometry) -> Truncation | None:
    """How many views of a scan are truncated.

    The edge of a view is the mean of its two outermost elements on one side. It counts when it exceeds 5 % of the
    largest line integral of the slice by five standard errors; the noise is that of the outermost elements. Of a cone
    beam, the left and right edges of each detector row are looked at.

    Args:
        sinogram: ``(..., views, detectors)`` line integrals, of cone beams ``(..., views, rows, columns)``.
        geometry: the scan.

    Returns:
        The share of truncated views and how much their edges read; None for detectors of fewer than eight elements.

    Raises:
        ValueError: the sinogram does not fit the geometry.
    """
    shape = geometry.sinogram_shape
    if tuple(sinogram.shape[-len(shape) :]) != tuple(shape):
        raise ValueError(f"the sinogram must end in {tuple(shape)}, got shape {tuple(sinogram.shape)}")
    if shape[-1] < _LEAST_DETECTORS or sinogram.numel() == 0:
        return None
    rows = sinogram.detach().reshape(-1, *shape)
    slices = rows if rows.ndim == 3 else rows.movedim(2, 1).flatten(0, 1)
    largest = slices.amax((1, 2)).clamp_min(torch.finfo(slices.dtype).tiny)
    share = torch.zeros(slices.shape[:2], dtype=torch.bool, device=slices.device)
    level = torch.zeros_like(largest)
    for edge in (slices[..., :3], slices[..., -3:].flip(-1)):
        reading, error = edge[..., :_EDGE].mean(-1), _standard_error(edge)
        beyond = reading > _AIR * largest[:, None] + _SIGNIFICANT * error[:, None]
        share |= beyond
        level = torch.maximum(level, (reading * beyond).amax(1) / largest)
    views = share.double().mean(1)
    worst = int(views.argmax())
    return Truncation(views=float(views[worst]), level=float(level[worst]))


def _standard_error(edge: Tensor) -> Tensor:
    """``(slices,)`` noise of the mean of two elements, from second differences of three, ``(slices, views, 3)``."""
    second = (edge[..., 0] - 2 * edge[..., 1] + edge[..., 2]) / 6**0.5
    deviation = (second - second.median(1, keepdim=True).values).abs().median(1).values
    return _MEDIAN_TO_SIGMA * deviation / _EDGE**0.5
