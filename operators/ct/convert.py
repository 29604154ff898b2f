"""Conversion of geometries to and from ASTRA's dictionaries."""

from __future__ import annotations

from typing import Any

import numpy as np

from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry, PlanarGeometry


def to_astra(geometry: PlanarGeometry) -> tuple[dict[str, Any], dict[str, Any]]:
    """ASTRA's volume and projection geometry of a scan, in mm.

    Args:
        geometry: a parallel geometry, or a fan geometry with a flat detector.

    Returns:
        (volume geometry, projection geometry); the latter by vectors where there are offsets.

    Raises:
        ValueError: ASTRA has no such geometry (curved detector).
    """
    (rows, columns), (pitch_y, pitch_x) = geometry.image_shape, geometry.pixel_rc
    half_x, half_y = 0.5 * columns * pitch_x, 0.5 * rows * pitch_y
    volume = {
        "GridRowCount": rows,
        "GridColCount": columns,
        "option": {"WindowMinX": -half_x, "WindowMaxX": half_x, "WindowMinY": -half_y, "WindowMaxY": half_y},
    }
    angles = geometry.angle_array
    cos, sin = np.cos(angles), np.sin(angles)
    across = np.stack([cos, sin], -1)
    shift = geometry.detector_offset_mm - geometry.axis_offset_mm
    if isinstance(geometry, ParallelGeometry):
        if shift == 0:
            kind = {"type": "parallel", "DetectorWidth": geometry.detector_mm, "ProjectionAngles": angles}
        else:
            along = np.stack([-sin, cos], -1)
            vectors = np.concatenate([along, shift * across, geometry.detector_mm * across], -1)
            kind = {"type": "parallel_vec", "Vectors": vectors}
    elif isinstance(geometry, FanGeometry) and geometry.detector == "flat":
        to_detector = geometry.source_to_detector_mm - geometry.source_to_center_mm
        if shift == 0 and geometry.axis_offset_mm == 0:
            kind = {
                "type": "fanflat",
                "DetectorWidth": geometry.detector_mm,
                "ProjectionAngles": angles,
                "DistanceOriginSource": geometry.source_to_center_mm,
                "DistanceOriginDetector": to_detector,
            }
        else:
            center = to_detector * np.stack([-sin, cos], -1) + shift * across
            vectors = np.concatenate([geometry.sources(), center, geometry.detector_mm * across], -1)
            kind = {"type": "fanflat_vec", "Vectors": vectors}
    else:
        raise ValueError("ASTRA's two-dimensional projectors have no curved detector; use backend='matrix'")
    return volume, {"DetectorCount": geometry.detectors, **kind}
