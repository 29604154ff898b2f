"""Pixels that no ray of a scan meets."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct.backprojection import detector_coordinate
from deft_ct.operators.ct.geometry import FanGeometry, PlanarGeometry

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


def _shadow(geometry: PlanarGeometry) -> float:
    """Half the widest shadow of a pixel, in detector elements."""
    half = 0.5 * math.hypot(*geometry.pixel_rc) / geometry.detector_mm
    if not isinstance(geometry, FanGeometry):
        return half
    nearest = geometry.source_to_center_mm - geometry.radius_mm
    return half * geometry.source_to_detector_mm / nearest
