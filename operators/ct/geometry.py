"""Two-dimensional scan geometries as immutable values, in mm and radians.

Conventions, the same for every geometry: x points right (columns) and y up (row 0 is the top row), the image is
centred on the rotation axis. At view angle ``b`` the detector axis is ``u = (cos b, sin b)`` and the rays run along
``(-sin b, cos b)``; detector element ``j`` of ``n`` sits at ``(j - (n - 1) / 2) * detector_mm + detector_offset_mm``
along ``u``. ``axis_offset_mm`` is where the rotation axis meets the detector axis, seen from the central ray: source
and detector together are shifted by its negative along ``u`` (a wrong centre of rotation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, Self

import numpy as np

from deft_ct.operators.ct import _checks
from deft_ct.operators.ct.rays import Array, Rays
from deft_ct.operators.ct.scan import ScanGeometry

__all__ = ["FanGeometry", "ParallelGeometry", "PlanarGeometry"]


_ROUNDING = 1e-9
"""Detector elements by which a width may exceed a whole number of them because of rounding."""


class HasPixels(Protocol):
    """Anything with slices of a known pixel size, such as a CT volume."""

    @property
    def image_shape(self) -> tuple[int, int]:
        """(rows, columns) of a slice."""

    @property
    def pixel_mm(self) -> float | tuple[float, float]:
        """One pixel size, or (row spacing, column spacing), mm."""


@dataclass(frozen=True, kw_only=True)
class PlanarGeometry(ScanGeometry):
    """What the two-dimensional geometries share; use :class:`ParallelGeometry` or :class:`FanGeometry`.

    Args:
        image_shape: (rows, columns).
        pixel_mm: pixel size, one number or (row spacing, column spacing).
        views: number of equally spaced views over ``[start_angle, start_angle + angular_range)``.
        angles: view angles in radians, instead of ``views``; in any order.
        detectors: number of detector elements; enough to cover the diagonal of the image if left out.
        detector_mm: distance between the centres of two neighbouring detector elements.
        start_angle: angle of the first view, radians; only with ``views``.
        angular_range: angle that the views cover, end excluded, radians; only with ``views``.
        detector_offset_mm: shift of the detector along its axis.
        axis_offset_mm: shift of the rotation axis along the detector axis, seen from the central ray.

    Raises:
        ValueError: a count below 1, a length that is not positive, an angle or offset that is not finite.
        TypeError: an argument of the wrong type.
    """

    image_shape: tuple[int, int]
    pixel_mm: float | tuple[float, float]
    detectors: int = None  # type: ignore[assignment]  # a count after validation
    detector_mm: float
    detector_offset_mm: float = 0.0
    axis_offset_mm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        put = object.__setattr__
        put(self, "image_shape", _checks.counts("image_shape", self.image_shape, 2))
        put(self, "pixel_mm", _checks.spacing("pixel_mm", self.pixel_mm, 2))
        put(self, "detector_mm", _checks.positive("detector_mm", self.detector_mm))
        for name in ("detector_offset_mm", "axis_offset_mm"):
            put(self, name, _checks.finite(name, getattr(self, name)))
        self._check_distances()
        wanted = self.covering_detectors if self.detectors is None else self.detectors
        put(self, "detectors", _checks.count("detectors", wanted))

    def _check_distances(self) -> None:
        """Check the lengths that only the subclass has."""

    @property
    def pixel_rc(self) -> tuple[float, float]:
        """(row spacing, column spacing) in mm."""
        return self.pixel_mm  # type: ignore[return-value]  # a pair after validation

    @property
    def sinogram_shape(self) -> tuple[int, int]:
        """(views, detectors)."""
        return len(self.angle_array), self.detectors

    @property
    def radius_mm(self) -> float:
        """Half the diagonal of the image."""
        (height, width), (pitch_y, pitch_x) = self.image_shape, self.pixel_rc
        return 0.5 * math.hypot(height * pitch_y, width * pitch_x)

    @property
    def image_width_mm(self) -> float:
        """Width of the part of the detector that sees the image in any view."""
        raise TypeError("PlanarGeometry has no rays; use ParallelGeometry or FanGeometry")

    @property
    def covering_detectors(self) -> int:
        """Number of detector elements that cover the diagonal of the image, for a detector that is not shifted."""
        return math.ceil(self.image_width_mm / self.detector_mm - _ROUNDING) + 1

    @property
    def detector_positions(self) -> Array:
        """``(detectors,)`` signed distance of each detector element from the central ray, along the detector, mm."""
        index = np.arange(self.detectors, dtype=np.float64)
        return (index - (self.detectors - 1) / 2) * self.detector_mm + self.detector_offset_mm

    def rays(self) -> Rays:
        """The line that each detector element measures."""
        raise TypeError("PlanarGeometry has no rays; use ParallelGeometry or FanGeometry")

    def refined(self, factor: int) -> Self:
        """The same scan of an image grid ``factor`` times finer, to simulate data without the inverse crime."""
        factor = _checks.count("factor", factor)
        (height, width), (pitch_y, pitch_x) = self.image_shape, self.pixel_rc
        return self.replace(
            image_shape=(height * factor, width * factor), pixel_mm=(pitch_y / factor, pitch_x / factor)
        )


@dataclass(frozen=True, kw_only=True)
class ParallelGeometry(PlanarGeometry):
    """Parallel beam; equally spaced views cover ``[0, pi)`` by default. See :class:`PlanarGeometry`."""

    kind: ClassVar[str] = "parallel"

    @property
    def image_width_mm(self) -> float:
        """Width of the part of the detector that sees the image in any view."""
        return 2 * self.radius_mm

    def rays(self) -> Rays:
        """The line that each detector element measures."""
        angle = self.angle_array[:, None]
        s = (self.detector_positions - self.axis_offset_mm)[None, :]
        u = np.stack([np.cos(angle), np.sin(angle)], -1)
        along = np.broadcast_to(np.stack([-np.sin(angle), np.cos(angle)], -1), (*self.sinogram_shape, 2))
        return Rays(origin=s[..., None] * u, direction=along)

    @classmethod
    def for_image(
        cls,
        image_shape: tuple[int, int],
        pixel_mm: float | tuple[float, float],
        views: int,
        *,
        detector_mm: float | None = None,
    ) -> Self:
        """A scan whose detector covers the diagonal of the image; its pitch is the smaller pixel side if left out."""
        pitch = _checks.spacing("pixel_mm", pixel_mm, 2)
        width = min(pitch) if detector_mm is None else _checks.positive("detector_mm", detector_mm)
        return cls(image_shape=image_shape, pixel_mm=(pitch[0], pitch[1]), views=views, detector_mm=width)

    @classmethod
    def for_volume(cls, volume: HasPixels, views: int, *, detector_mm: float | None = None) -> Self:
        """:meth:`for_image` with the slice shape and the pixel size of a volume."""
        return cls.for_image(volume.image_shape, volume.pixel_mm, views, detector_mm=detector_mm)

    @classmethod
    def lodopab(cls, views: int = 1000) -> Self:
        """LoDoPaB-CT (Leuschner et al. 2021, Scientific Data 8:109): 362 px over 260 mm, 1000 views, 513 detectors.

        The images are used as stored (first axis down). With fewer views every ``1000 / views``-th one is kept.
        """
        if 1000 % _checks.count("views", views):
            raise ValueError(f"views must divide 1000, the views of LoDoPaB, got {views}")
        angles = ((np.arange(1000) + 0.5) * math.pi / 1000 - math.pi / 2)[:: 1000 // views]
        return cls(
            image_shape=(362, 362),
            pixel_mm=260 / 362,
            angles=angles,
            detectors=513,
            detector_mm=260 * math.sqrt(2) / 513,
        )

    @classmethod
    def aapm_sparse(cls, views: int = 60) -> Self:
        """Sparse-view setting on 256 x 256 slices of 1.5 mm pixels (384 mm), 364 detector elements."""
        return cls(image_shape=(256, 256), pixel_mm=1.5, views=views, detectors=364, detector_mm=1.5)


@dataclass(frozen=True, kw_only=True)
class FanGeometry(PlanarGeometry):
    """Fan beam; equally spaced views cover ``[0, 2 pi)`` by default. See :class:`PlanarGeometry`.

    Args:
        source_to_center_mm: distance from the source to the line through the rotation axis along ``u``.
        source_to_detector_mm: distance from the source to the detector along the central ray.
        detector: ``"flat"``, or ``"curved"``: on a circle around the source (equiangular), where ``detector_mm`` is
            measured along the arc.
    """

    kind: ClassVar[str] = "fan"
    angular_range: float = field(default=2 * math.pi, compare=False, repr=False)
    source_to_center_mm: float
    source_to_detector_mm: float
    detector: Literal["flat", "curved"] = "flat"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.detector == "curved" and float(np.abs(self.fan_angles).max()) >= math.pi / 2:
            raise ValueError("the curved detector spans half a turn or more seen from the source: check detector_mm")

    def _check_distances(self) -> None:
        for name in ("source_to_center_mm", "source_to_detector_mm"):
            object.__setattr__(self, name, _checks.positive(name, getattr(self, name)))
        if self.detector not in ("flat", "curved"):
            raise ValueError(f'detector must be "flat" or "curved", got {self.detector!r}')
        if self.source_to_center_mm <= self.radius_mm:
            raise ValueError(
                f"source_to_center_mm = {self.source_to_center_mm:g} puts the source inside the image, whose half "
                f"diagonal is {self.radius_mm:.6g} mm: move the source out or take a smaller image"
            )
        if self.source_to_detector_mm < self.source_to_center_mm:
            raise ValueError(
                f"source_to_detector_mm = {self.source_to_detector_mm:g} must not be below source_to_center_mm = "
                f"{self.source_to_center_mm:g}: both are measured from the source"
            )

    @property
    def image_width_mm(self) -> float:
        """Width of the part of the detector that sees the image in any view; along the arc of a curved detector."""
        half_angle = math.asin(self.radius_mm / self.source_to_center_mm)
        return 2 * self.source_to_detector_mm * (math.tan(half_angle) if self.detector == "flat" else half_angle)

    @property
    def fan_angles(self) -> Array:
        """``(detectors,)`` angle between each ray and the central ray at the source, radians."""
        u = self.detector_positions / self.source_to_detector_mm
        return np.arctan(u) if self.detector == "flat" else u

    def sources(self) -> Array:
        """``(views, 2)`` source positions, mm."""
        sin, cos = np.sin(self.angle_array), np.cos(self.angle_array)
        return self.source_to_center_mm * np.stack([sin, -cos], -1) - self.axis_offset_mm * np.stack([cos, sin], -1)

    def rays(self) -> Rays:
        """The line that each detector element measures."""
        total = self.angle_array[:, None] - self.fan_angles[None, :]
        direction = np.stack([-np.sin(total), np.cos(total)], -1)
        origin = np.broadcast_to(self.sources()[:, None, :], direction.shape)
        return Rays(origin=origin, direction=direction)

    @classmethod
    def for_image(
        cls,
        image_shape: tuple[int, int],
        pixel_mm: float | tuple[float, float],
        views: int,
        *,
        source_to_center_mm: float = 595.0,
        source_to_detector_mm: float = 1085.6,
        detector_mm: float | None = None,
        detector: Literal["flat", "curved"] = "flat",
    ) -> Self:
        """A full scan whose detector covers the diagonal of the image.

        The default distances are typical of a clinical scanner. The pitch is, if left out, such that two neighbouring
        rays are one (smaller) pixel side apart at the rotation axis.
        """
        pitch = _checks.spacing("pixel_mm", pixel_mm, 2)
        if detector_mm is None:
            center = _checks.positive("source_to_center_mm", source_to_center_mm)
            detector_mm = min(pitch) * (source_to_detector_mm / center)
        return cls(
            image_shape=image_shape,
            pixel_mm=(pitch[0], pitch[1]),
            views=views,
            detector_mm=detector_mm,
            source_to_center_mm=source_to_center_mm,
            source_to_detector_mm=source_to_detector_mm,
            detector=detector,
        )

    @classmethod
    def for_volume(
        cls,
        volume: HasPixels,
        views: int,
        *,
        source_to_center_mm: float = 595.0,
        source_to_detector_mm: float = 1085.6,
        detector: Literal["flat", "curved"] = "flat",
    ) -> Self:
        """:meth:`for_image` with the slice shape and the pixel size of a volume."""
        return cls.for_image(
            volume.image_shape,
            volume.pixel_mm,
            views,
            source_to_center_mm=source_to_center_mm,
            source_to_detector_mm=source_to_detector_mm,
            detector=detector,
        )
