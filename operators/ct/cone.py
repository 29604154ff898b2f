"""Cone-beam geometry with a flat detector, on a circle or a helix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from deft_ct.operators.ct import _checks
from deft_ct.operators.ct.geometry import FanGeometry
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.scan import ScanGeometry, VolumeRays


@dataclass(frozen=True, kw_only=True)
class ConeGeometry(VolumeRays, ScanGeometry):
    """Cone beam on a flat detector; equally spaced views cover ``[0, 2 pi)`` by default.

    In the plane of the source the conventions are the same as in :class:`~deft_ct.operators.ct.FanGeometry`; the
    rotation axis is z, slice ``k`` of ``Z`` lies at ``(k - (Z - 1) / 2) * spacing``, and the detector rows run along
    +z.

    Args:
        image_shape: (slices, rows, columns).
        pixel_mm: voxel size, one number or (slice, row, column spacing).
        detectors: detector (rows, columns).
        detector_mm: distance of the centres of detector elements, one number or (row, column spacing).
        source_to_center_mm: distance from the source to the rotation axis along the central ray.
        source_to_detector_mm: distance from the source to the detector along the central ray.
        detector_offset_mm: shift of the detector along (rows, columns).
        axis_offset_mm: shift of the rotation axis along the detector columns' axis, seen from the central ray.
        pitch_mm: travel of source and detector along +z in a full turn (a helix); z = 0 at angle 0.
        views: number of equally spaced views; or give ``angles``.

    Raises:
        ValueError: a count below 1, a length that is not positive, a source inside the volume, and the like.
        TypeError: an argument of the wrong type.
    """

    kind: ClassVar[str] = "cone"
    angular_range: float = field(default=2 * math.pi, compare=False, repr=False)
    image_shape: tuple[int, int, int]
    pixel_mm: float | tuple[float, float, float]
    detectors: tuple[int, int]
    detector_mm: float | tuple[float, float]
    source_to_center_mm: float
    source_to_detector_mm: float
    detector_offset_mm: tuple[float, float] = (0.0, 0.0)
    axis_offset_mm: float = 0.0
    pitch_mm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        put = object.__setattr__
        put(self, "image_shape", _checks.counts("image_shape", self.image_shape, 3))
        put(self, "pixel_mm", _checks.spacing("pixel_mm", self.pixel_mm, 3))
        put(self, "detectors", _checks.counts("detectors", self.detectors, 2))
        put(self, "detector_mm", _checks.spacing("detector_mm", self.detector_mm, 2))
        for name in ("source_to_center_mm", "source_to_detector_mm"):
            put(self, name, _checks.positive(name, getattr(self, name)))
        for name in ("axis_offset_mm", "pitch_mm"):
            put(self, name, _checks.finite(name, getattr(self, name)))
        if np.shape(self.detector_offset_mm) != (2,):
            raise ValueError(f"detector_offset_mm must be (along rows, along columns), got {self.detector_offset_mm!r}")
        offsets = tuple(_checks.finite(f"detector_offset_mm[{i}]", v) for i, v in enumerate(self.detector_offset_mm))
        put(self, "detector_offset_mm", offsets)
        self.middle_fan()  # the same rules hold in the plane of the source

    @property
    def detector_vu(self) -> tuple[float, float]:
        """(row, column spacing) of the detector in mm."""
        return self.detector_mm  # type: ignore[return-value]  # a pair after validation

    @property
    def sinogram_shape(self) -> tuple[int, int, int]:
        """(views, detector rows, detector columns)."""
        return len(self.angle_array), *self.detectors

    def middle_fan(self) -> FanGeometry:
        """The fan-beam scan of one slice in the plane of the source."""
        return FanGeometry(
            image_shape=self.image_shape[1:],
            pixel_mm=self.voxel_zyx[1:],
            angles=self.angles,
            detectors=self.detectors[1],
            detector_mm=self.detector_vu[1],
            source_to_center_mm=self.source_to_center_mm,
            source_to_detector_mm=self.source_to_detector_mm,
            detector_offset_mm=self.detector_offset_mm[1],
            axis_offset_mm=self.axis_offset_mm,
        )

    def poses(self) -> tuple[Array, Array, Array, Array]:
        """Source, centre of element (0, 0), step to the next row and to the next column, each ``(views, 3)``, x y z."""
        angle = self.angle_array
        cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
        across, along = np.stack([cos, sin, zero], -1), np.stack([-sin, cos, zero], -1)
        up = np.array([0.0, 0.0, 1.0])
        travel = self.pitch_mm * angle / (2 * math.pi)
        source = -self.source_to_center_mm * along - self.axis_offset_mm * across + travel[:, None] * up
        (rows, columns), (dv, du) = self.detectors, self.detector_vu
        first = [
            -(n - 1) / 2 * d + o for n, d, o in zip((rows, columns), (dv, du), self.detector_offset_mm, strict=True)
        ]
        corner = source + self.source_to_detector_mm * along + first[0] * up + first[1] * across
        return source, corner, np.broadcast_to(dv * up, source.shape).copy(), du * across

    def refined(self, factor: int) -> Self:
        """The same scan of a voxel grid ``factor`` times finer, to simulate data without the inverse crime."""
        factor = _checks.count("factor", factor)
        shape = tuple(n * factor for n in self.image_shape)
        return self.replace(image_shape=shape, pixel_mm=tuple(d / factor for d in self.voxel_zyx))

    @classmethod
    def for_image(
        cls,
        image_shape: tuple[int, int, int],
        pixel_mm: float | Sequence[float],
        views: int,
        *,
        source_to_center_mm: float = 595.0,
        source_to_detector_mm: float = 1085.6,
    ) -> Self:
        """A full scan whose detector covers the volume, with rays about one voxel apart at the rotation axis."""
        shape = _checks.counts("image_shape", image_shape, 3)
        dz, dy, dx = _checks.spacing("pixel_mm", pixel_mm, 3)
        fan = FanGeometry.for_image(
            (shape[1], shape[2]),
            (dy, dx),
            views,
            source_to_center_mm=source_to_center_mm,
            source_to_detector_mm=source_to_detector_mm,
        )
        pitch = dz * source_to_detector_mm / source_to_center_mm
        half = 0.5 * shape[0] * dz * source_to_detector_mm / (source_to_center_mm - fan.radius_mm)
        return cls(
            image_shape=(shape[0], shape[1], shape[2]),
            pixel_mm=(dz, dy, dx),
            views=views,
            detectors=(math.ceil(2 * half / pitch) + 1, fan.detectors),
            detector_mm=(pitch, fan.detector_mm),
            source_to_center_mm=source_to_center_mm,
            source_to_detector_mm=source_to_detector_mm,
        )
