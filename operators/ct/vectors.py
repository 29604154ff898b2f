"""Scans as vectors, one set for each view: what geometries of other libraries are converted through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from deft_ct.operators.ct.cone import ConeGeometry
from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry, PlanarGeometry
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.scan import VolumeRays
from deft_ct.operators.ct.vector_geometry import VectorConeGeometry, VectorFanGeometry

Geometry = ParallelGeometry | FanGeometry | ConeGeometry
AnyGeometry = PlanarGeometry | ConeGeometry | VectorFanGeometry | VectorConeGeometry


@dataclass(frozen=True, kw_only=True)
class ScanVectors:
    """Positions and steps in mm, each ``(views, 3)`` in the order x, y, z; y points up and row 0 is the top one.

    Attributes:
        parallel: whether ``beam`` is the direction of parallel rays, not the position of a source.
        beam: source positions, or ray directions.
        center: centre of the detector.
        column_step: from a detector element to the next in its row.
        row_step: to the next detector row.
        detectors: (rows, columns).
    """

    parallel: bool
    beam: Array
    center: Array
    column_step: Array
    row_step: Array
    detectors: tuple[int, int]


def scan_vectors(geometry: AnyGeometry) -> ScanVectors:
    """The vectors of a scan. Two-dimensional scans lie in the plane z = 0, with one detector row 1 mm high.

    Raises:
        ValueError: a curved detector, which has no such vectors.
        TypeError: not a geometry.
    """
    if isinstance(geometry, VolumeRays):
        source, corner, row_step, column_step = geometry.poses()
        rows, columns = geometry.detectors
        center = corner + 0.5 * (rows - 1) * row_step + 0.5 * (columns - 1) * column_step
        return ScanVectors(
            parallel=False, beam=source, center=center, column_step=column_step, row_step=row_step,
            detectors=geometry.detectors,
        )  # fmt: skip
    if isinstance(geometry, VectorFanGeometry):
        source, center, step = (np.pad(geometry.vectors(name), [(0, 0), (0, 1)]) for name in geometry.vector_names)
        return ScanVectors(
            parallel=False, beam=source, center=center, column_step=step,
            row_step=np.broadcast_to([0.0, 0.0, 1.0], step.shape).copy(), detectors=(1, geometry.detectors),
        )  # fmt: skip
    if not isinstance(geometry, ParallelGeometry | FanGeometry):
        raise TypeError(f"geometry must be parallel, fan or cone, got {type(geometry).__name__}")
    cos, sin = np.cos(geometry.angle_array), np.sin(geometry.angle_array)
    zero = np.zeros_like(cos)
    across, along = np.stack([cos, sin, zero], -1), np.stack([-sin, cos, zero], -1)
    shift = geometry.detector_offset_mm - geometry.axis_offset_mm
    if isinstance(geometry, ParallelGeometry):
        beam, center = along, shift * across
    elif geometry.detector == "flat":
        beam = np.concatenate([geometry.sources(), zero[:, None]], -1)
        center = (geometry.source_to_detector_mm - geometry.source_to_center_mm) * along + shift * across
    else:
        raise ValueError("a curved detector has no vectors of this kind; use backend='matrix' or 'joseph'")
    return ScanVectors(
        parallel=isinstance(geometry, ParallelGeometry), beam=beam, center=center,
        column_step=geometry.detector_mm * across, row_step=np.broadcast_to([0.0, 0.0, 1.0], across.shape).copy(),
        detectors=(1, geometry.detectors),
    )  # fmt: skip


def geometry_from_vectors(
    vectors: ScanVectors, image_shape: tuple[int, int, int], voxel_zyx: tuple[float, float, float]
) -> Geometry:
    """The scan with these vectors: the inverse of :func:`scan_vectors`, up to whole turns of the angles.

    Parallel beams give a :class:`ParallelGeometry` for any number of slices. Offsets of their axis and of their
    detector have the same effect, so the result has an offset of the detector only.

    A divergent beam on one slice and one detector row is a fan, else a cone.

    Args:
        vectors: of every view.
        image_shape: (slices, rows, columns).
        voxel_zyx: (slice, row, column spacing) in mm.

    Raises:
        ValueError: not a scan on a circle or helix about the z axis with a detector at right angles to it.
    """
    across = vectors.column_step
    pitch = _constant(np.linalg.norm(across, axis=1), "the width of the detector elements")
    across = across / pitch
    _require(np.abs(across[:, 2]).max() < 1e-6, "the detector rows must be at right angles to the rotation axis")
    up = vectors.row_step
    height = _constant(up[:, 2], "the height of the detector elements")
    _require(
        height > 0 and np.abs(up[:, :2]).max() < 1e-6 * height, "the detector columns must run along the rotation axis"
    )
    along = np.stack([-across[:, 1], across[:, 0], np.zeros(len(across))], -1)
    angles = np.unwrap(np.arctan2(across[:, 1], across[:, 0]))
    common: dict[str, Any] = {"detectors": vectors.detectors[1], "detector_mm": pitch}
    planar: dict[str, Any] = {"image_shape": image_shape[1:], "pixel_mm": voxel_zyx[1:]}
    if vectors.parallel:
        beam = vectors.beam / np.linalg.norm(vectors.beam, axis=1, keepdims=True)
        _require(np.abs((beam * along).sum(-1)).min() > 1 - 1e-9, "the rays must be at right angles to the detector")
        offset = _constant((vectors.center * across).sum(-1), "the offset of the detector")
        return ParallelGeometry(angles=angles, detector_offset_mm=offset, **planar, **common)
    to_detector = vectors.center - vectors.beam
    depth = _constant((to_detector * along).sum(-1), "the distance from source to detector")
    _require(depth > 0, "the detector elements must count counter-clockwise seen from above, or images be mirrored")
    offset = _constant((to_detector * across).sum(-1), "the offset of the detector")
    radius = _constant(-(vectors.beam * along).sum(-1), "the distance from source to axis")
    if radius * (1 - 1e-9) <= depth < radius:  # a detector in the axis, up to rounding
        depth = radius
    common |= {"source_to_center_mm": radius, "source_to_detector_mm": depth}
    common["axis_offset_mm"] = _constant(-(vectors.beam * across).sum(-1), "the offset of the axis")
    lift = _constant(to_detector[:, 2], "the height of the detector over the source")
    travel = vectors.beam[:, 2]
    if image_shape[0] == 1 and vectors.detectors[0] == 1 and np.abs(travel).max() < 1e-9 and abs(lift) < 1e-9:
        return FanGeometry(angles=angles, detector_offset_mm=offset, **planar, **common)
    angles, pitch_mm = _helix(angles, travel)
    common |= {"detectors": vectors.detectors, "detector_mm": (height, pitch)}
    return ConeGeometry(
        image_shape=image_shape, pixel_mm=voxel_zyx, angles=angles, detector_offset_mm=(lift, offset),
        pitch_mm=pitch_mm, **common,
    )  # fmt: skip


def _helix(angles: Array, travel: Array) -> tuple[Array, float]:
    """Angles shifted by whole turns, and pitch, such that ``travel = pitch * angle / 2 pi``."""
    if np.abs(travel).max() < 1e-9:
        return angles, 0.0
    turns = angles / (2 * math.pi)
    _require(len(turns) > 1, "one view alone does not tell the pitch of a helix")
    pitch = float(np.polyfit(turns, travel, 1)[0])
    _require(abs(pitch) > 1e-12, "the source must move along a circle or a helix about the z axis")
    turns = turns + round(float(np.mean(travel / pitch - turns)))
    close = np.abs(pitch * turns - travel).max() < 1e-6 * max(1.0, abs(pitch))
    _require(bool(close), "the source must move along a circle or a helix that passes z = 0 at angle 0")
    return 2 * math.pi * turns, pitch


def _constant(values: Array, what: str) -> float:
    middle = float(values.mean())
    _require(float(np.ptp(values)) <= 1e-6 * max(1.0, abs(middle)), f"{what} must be the same in all views")
    return middle


def _require(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise ValueError(f"this scan cannot be converted: {message}")
