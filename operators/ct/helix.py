"""A helical scan with a curved detector, as its views were taken: one position of the source for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deft_ct.operators.ct import _checks
from deft_ct.operators.ct.rays import Array

STATES = (1, 2, 4)
"""Positions of the focal spot that a scanner goes through in turn: none, along one axis, along two."""

_SAME_SPOT_MM = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class HelicalScan:
    """Views of a multi-row detector on a cylinder about the focal centre.

    The axes are those of :class:`~deft_ct.operators.ct.FanGeometry` and z: at angle ``b`` the focal centre is at
    ``radius (sin b, -cos b)``, the columns count along ``(cos b, sin b)``, the rows along +z. The source is where the
    shifts move it; the detector belongs to the focal centre (DICOM-CT-PD: Chen et al. 2015, Med. Phys. 42, 6964).

    Args:
        angles: ``(views,)`` of the focal centre, radians, unwrapped, rising or falling.
        z_mm: ``(views,)`` its place along the axis; may rise or fall, need not be even.
        radius_mm: ``(views,)`` its distance from the axis.
        source_shifts: ``(views, 3)`` of the source against it: in angle (radians), along z and outwards (mm).
        source_to_detector_mm: radius of the detector.
        detectors: (rows, columns).
        detector_mm: (row height, column width along the arc).
        central: (row, column) that the central ray meets, counted from 0; may be fractions.

    Raises:
        ValueError: arrays of other lengths, values that are not finite, angles that do not go one way, a count below
            1, or a length that is not positive.
    """

    angles: Array
    z_mm: Array
    radius_mm: Array
    source_shifts: Array
    source_to_detector_mm: float
    detectors: tuple[int, int]
    detector_mm: tuple[float, float]
    central: tuple[float, float]

    def __post_init__(self) -> None:
        put, views = object.__setattr__, len(self.angles)
        if views < 2:
            raise ValueError(f"a helical scan needs two views or more, got {views}")
        for name, shape in (("angles", ()), ("z_mm", ()), ("radius_mm", ()), ("source_shifts", (3,))):
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape != (views, *shape) or not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite, of shape {(views, *shape)}, got shape {value.shape}")
            put(self, name, value)
        steps = np.diff(self.angles)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise ValueError("the angles of a helical scan must rise or fall from view to view; are they unwrapped?")
        put(self, "source_to_detector_mm", _checks.positive("source_to_detector_mm", self.source_to_detector_mm))
        put(self, "detectors", _checks.counts("detectors", self.detectors, 2))
        put(self, "detector_mm", _checks.spacing("detector_mm", self.detector_mm, 2))
        if self.radius_mm.min() <= 0 or self.radius_mm.max() >= self.source_to_detector_mm:
            raise ValueError("the rotation axis must lie between the source and the detector")
        if float(np.abs(self.fan_angles).max()) >= math.pi / 2:
            raise ValueError("the detector spans half a turn or more seen from the source: check the column width")

    @property
    def data_shape(self) -> tuple[int, int, int]:
        """(views, rows, columns)."""
        return len(self.angles), *self.detectors

    @property
    def feed_mm(self) -> float:
        """Travel along z in a turn of rising angle; signed."""
        return float(np.polyfit(self.angles, self.z_mm, 1)[0] * 2 * math.pi)

    @property
    def collimation_mm(self) -> float:
        """Height of the detector at the rotation axis."""
        return self.detectors[0] * self.detector_mm[0] * float(self.radius_mm.mean()) / self.source_to_detector_mm

    @property
    def views_per_turn(self) -> float:
        """Views in a turn."""
        return float(2 * math.pi * (len(self.angles) - 1) / abs(self.angles[-1] - self.angles[0]))

    @property
    def fan_angles(self) -> Array:
        """``(columns,)`` angle of each column to the central ray, at the focal centre, radians."""
        return (
            (np.arange(self.detectors[1], dtype=np.float64) - self.central[1])
            * self.detector_mm[1]
            / self.source_to_detector_mm
        )

    @property
    def heights(self) -> Array:
        """``(rows,)`` place of each row along z against the focal centre, mm."""
        return (np.arange(self.detectors[0], dtype=np.float64) - self.central[0]) * self.detector_mm[0]

    @property
    def reach_mm(self) -> float:
        """Radius about the axis that every view covers, where the detector is not cut off."""
        ends = self.fan_angles[[0, -1]]
        return float(self.radius_mm.mean()) * math.sin(float(np.abs(ends).min()))

    def complete_range(self, radius_mm: float) -> tuple[float, float]:
        """First and last place along the axis of slices that are measured from all sides.

        The first complete parallel view comes when half the fan has passed, and a slice needs half a turn of them,
        from where the detector reaches back to it. The upper end may lie below the lower one: then there is none.

        Args:
            radius_mm: of the field of view.
        """
        feed, fan = abs(self.feed_mm), float(np.ptp(self.fan_angles))
        far = float(self.radius_mm.mean())
        half = 0.5 * self.collimation_mm * max(0.0, 1 - radius_mm / far)
        margin = feed * (math.pi + fan) / (2 * math.pi) - half
        return float(self.z_mm.min()) + margin, float(self.z_mm.max()) - margin

    def sources(self) -> Array:
        """``(views, 3)`` positions of the source, mm."""
        angle, radius = self.angles + self.source_shifts[:, 0], self.radius_mm + self.source_shifts[:, 2]
        return np.stack([radius * np.sin(angle), -radius * np.cos(angle), self.z_mm + self.source_shifts[:, 1]], -1)

    def columns(self) -> Array:
        """``(views, columns, 3)`` positions of the first row of the detector, mm; the next is its height further up."""
        total = self.angles[:, None] - self.fan_angles
        center = self.radius_mm[:, None] * np.stack([np.sin(self.angles), -np.cos(self.angles)])[..., None]
        x = center[0] - self.source_to_detector_mm * np.sin(total)
        y = center[1] + self.source_to_detector_mm * np.cos(total)
        return np.stack([x, y, np.broadcast_to(self.z_mm[:, None] + self.heights[0], x.shape)], -1)

    def part(self, views: slice) -> HelicalScan:
        """Some of the views."""
        return HelicalScan(
            angles=self.angles[views], z_mm=self.z_mm[views], radius_mm=self.radius_mm[views],
            source_shifts=self.source_shifts[views], source_to_detector_mm=self.source_to_detector_mm,
            detectors=self.detectors, detector_mm=self.detector_mm, central=self.central,
        )  # fmt: skip

    def states(self) -> int:
        """How many positions the focal spot goes through in turn: one of :data:`STATES`.

        Raises:
            ValueError: the shifts do not repeat every one, two or four views.
        """
        in_mm = self.source_shifts * np.array([float(self.radius_mm.mean()), 1.0, 1.0])
        for count in STATES:
            if len(in_mm) > count and np.abs(in_mm[count:] - in_mm[:-count]).max() <= _SAME_SPOT_MM:
                return count
        raise ValueError(
            "the focal spot does not move in a cycle of 1, 2 or 4 views: read every view of the series, or use a "
            "method that works on the helix itself (cgls)"
        )

    def spot(self, state: int, count: int) -> Spot:
        """The rays of the views ``state, state + count, ...``, which share a position of the focal spot."""
        shift, axial, outward = self.source_shifts[state::count].mean(0)
        center = float(self.radius_mm[state::count].mean())
        radius = center + outward
        source = np.array([radius * math.sin(shift), -radius * math.cos(shift)])
        gamma = self.fan_angles
        element = np.stack([np.sin(gamma), np.cos(gamma)], -1) * self.source_to_detector_mm - [0.0, center]
        ray = element - source
        length = np.linalg.norm(ray, axis=-1)
        ray /= length[:, None]
        turn = np.arctan2(-ray[:, 0], ray[:, 1])
        return Spot(turn, source[0] * np.cos(turn) + source[1] * np.sin(turn), ray @ source, length, float(axial))


class Spot(NamedTuple):
    """The rays of one position of the focal spot, seen along the axis, as parallel beams see them.

    Attributes:
        turn: ``(columns,)`` angle of the parallel view that holds the ray, less that of its own view.
        lateral: ``(columns,)`` distance from the axis, mm.
        start: ``(columns,)`` place of the source along the ray, from the foot of the axis; negative, mm.
        length: ``(columns,)`` from source to detector, mm.
        axial: shift of the source along z, mm.
    """

    turn: Array
    lateral: Array
    start: Array
    length: Array
    axial: float


@dataclass(frozen=True, kw_only=True)
class VolumeGrid:
    """Voxels about the rotation axis.

    Args:
        image_shape: (slices, rows, columns).
        voxel_zyx: (slice, row, column spacing), mm.
        z_mm: place of the middle of the volume along the axis; slice 0 is the lowest.

    Raises:
        ValueError: a count below 1, a length that is not positive, or a place that is not finite.
    """

    image_shape: tuple[int, int, int]
    voxel_zyx: tuple[float, float, float]
    z_mm: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", _checks.counts("image_shape", self.image_shape, 3))
        object.__setattr__(self, "voxel_zyx", _checks.spacing("voxel_zyx", self.voxel_zyx, 3))
        object.__setattr__(self, "z_mm", _checks.finite("z_mm", self.z_mm))

    @property
    def z(self) -> Array:
        """``(slices,)`` places of the slices along the axis, mm."""
        return (
            self.z_mm
            + (np.arange(self.image_shape[0], dtype=np.float64) - (self.image_shape[0] - 1) / 2) * self.voxel_zyx[0]
        )

    @property
    def x(self) -> Array:
        """``(columns,)`` mm, to the right."""
        return (np.arange(self.image_shape[2], dtype=np.float64) - (self.image_shape[2] - 1) / 2) * self.voxel_zyx[2]

    @property
    def y(self) -> Array:
        """``(rows,)`` mm, up; row 0 is the top one."""
        return ((self.image_shape[1] - 1) / 2 - np.arange(self.image_shape[1], dtype=np.float64)) * self.voxel_zyx[1]

    @property
    def radius_mm(self) -> float:
        """Half the diagonal of a slice."""
        (_, rows, columns), (_, dy, dx) = self.image_shape, self.voxel_zyx
        return 0.5 * math.hypot(rows * dy, columns * dx)

    def slices(self, first: int, last: int) -> VolumeGrid:
        """The slices ``first <= k < last``; they may lie outside of this grid."""
        middle = self.z_mm + ((first + last - 1) / 2 - (self.image_shape[0] - 1) / 2) * self.voxel_zyx[0]
        return VolumeGrid(
            image_shape=(last - first, *self.image_shape[1:]), voxel_zyx=self.voxel_zyx, z_mm=middle
        )  # fmt: skip
