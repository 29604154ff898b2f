"""Pixels and voxels that no ray of a scan meets."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct.backprojection import detector_coordinate
from deft_ct.operators.ct.geometry import FanGeometry, PlanarGeometry
from deft_ct.operators.ct.scan import VolumeRays
from deft_ct.operators.ct.vector_geometry import VectorFanGeometry

_BLOCK = 2**21
"""Detector coordinates that are computed at once."""


def unseen_pixels(geometry: PlanarGeometry, weight: Tensor) -> Tensor | None:
    """Pixels that lie beside the detector in every view, so that the data say nothing of them.

    A pixel between two rays is not one of them: rays are lines only in the model, and a real beam is as wide as its
    detector element. So a pixel counts as unseen if no ray has a weight there and if in every view its shadow falls
    beside the detector.

    Args:
        geometry: parallel or fan beam.
        weight: ``(rows, columns)``, the adjoint of data of ones.

    Returns:
        ``(rows, columns)`` bool on the CPU; None where all pixels are seen.
    """
    candidates = torch.nonzero(weight.cpu() == 0).numpy()
    if not len(candidates):
        return None
    (height, width), (pitch_y, pitch_x) = geometry.image_shape, geometry.pixel_rc
    x = (candidates[:, 1, None] - (width - 1) / 2) * pitch_x
    y = ((height - 1) / 2 - candidates[:, 0, None]) * pitch_y
    outside = np.ones(len(candidates), dtype=bool)
    angles = geometry.angle_array
    margin = 0.5 + _shadow(geometry)  # half an element, and half the shadow of the pixel
    step = max(1, _BLOCK // len(candidates))
    for first in range(0, len(angles), step):
        index, _ = detector_coordinate(geometry, angles[first : first + step], x, y)
        outside &= ((index < -margin) | (index > geometry.detectors - 1 + margin)).all(1)
    if not outside.any():
        return None
    unseen = torch.zeros(geometry.image_shape, dtype=torch.bool)
    rows, columns = torch.from_numpy(candidates[outside].T.copy())
    unseen[rows, columns] = True
    return unseen


def unseen_beside_flat(geometry: VolumeRays | VectorFanGeometry, weight: Tensor) -> Tensor | None:
    """Pixels or voxels whose shadow lies beside the flat detector in every view; see :func:`unseen_pixels`.

    Args:
        geometry: a cone beam on any trajectory, or fan beams by vectors; the whole image lies before the source.
        weight: of the shape of the image, the adjoint of data of ones.

    Returns:
        A bool mask of this shape on the CPU; None where everything is seen.
    """
    candidates = torch.nonzero(weight.cpu() == 0).numpy()
    if not len(candidates):
        return None
    source, corner, *steps = geometry.poses()
    spacing, detectors = np.atleast_1d(geometry.pixel_mm), np.atleast_1d(geometry.detectors)
    points = ((candidates - (np.array(geometry.image_shape) - 1) / 2) * spacing)[:, ::-1]  # x, y and z
    points = points * np.where(np.arange(points.shape[1]) == 1, -1.0, 1.0)  # rows go down and y goes up
    half = 0.5 * float(np.linalg.norm(spacing))
    outside = np.ones(len(points), dtype=bool)
    for view in range(len(source)):
        left = np.flatnonzero(outside)
        if not len(left):
            return None
        # A point is source + w (corner - source + sum of index * step).
        basis = np.stack([*(step[view] for step in steps), corner[view] - source[view]], axis=1)
        inverse = np.linalg.inv(basis)
        scaled = (points[left] - source[view]) @ inverse.T
        w, reach = scaled[:, -1:], np.linalg.norm(inverse, axis=1)
        index = scaled[:, :-1] / w
        # Half an element, and how far the index moves, to first order, within half the diagonal of a voxel.
        margin = 0.5 + half * (reach[:-1] + np.abs(index) * reach[-1]) / w
        outside[left] = ((index < -margin) | (index > detectors - 1 + margin)).any(1)
    if not outside.any():
        return None
    unseen = torch.zeros(geometry.image_shape, dtype=torch.bool)
    unseen[tuple(torch.from_numpy(candidates[outside].T.copy()))] = True
    return unseen


def _shadow(geometry: PlanarGeometry) -> float:
    """Half the widest shadow of a pixel, in detector elements."""
    half = 0.5 * math.hypot(*geometry.pixel_rc) / geometry.detector_mm
    if not isinstance(geometry, FanGeometry):
        return half
    nearest = geometry.source_to_center_mm - geometry.radius_mm
    return half * geometry.source_to_detector_mm / nearest
