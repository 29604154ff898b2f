"""Scans given by vectors, one set for each view: calibrated scanners, moving detectors, trajectories of any shape.

A scanner that was calibrated has a source and a detector of its own in every view. These geometries take them as they
are. The conventions are those of the other geometries: mm, x to the right, y up, z along the slices, origin at the
centre of the image, and flat detectors. There is no filtered back-projection for them: reconstruct iteratively.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from deft_ct.operators.ct import _checks
from deft_ct.operators.ct.cone import ConeGeometry
from deft_ct.operators.ct.geometry import FanGeometry
from deft_ct.operators.ct.rays import Array, Rays
from deft_ct.operators.ct.scan import DescribedRays, VolumeRays

Vectors = Sequence[Sequence[float]] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class VectorGeometry(DescribedRays):
    """What the two have in common; use :class:`VectorFanGeometry` or :class:`VectorConeGeometry`."""

    vector_names: ClassVar[tuple[str, ...]]
    axes: ClassVar[int]
    source_mm: Vectors
    detector_mm: Vectors

    def _check_vectors(self) -> None:
        """Store the vectors as tuples of floats, so that equal scans are equal and can be looked up.

        Raises:
            ValueError: vectors that are not ``(views, axes)``, not finite or not of one number of views.
        """
        for name in self.vector_names:
            values = self.vectors(name)
            if values.ndim != 2 or values.shape[1] != self.axes or not len(values):
                raise ValueError(
                    f"{name} must hold {self.axes} numbers for each view, (views, {self.axes}), got shape "
                    f"{values.shape}"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"{name} must be finite, view {int(np.argmin(np.isfinite(values).all(1)))} is not")
            object.__setattr__(self, name, tuple(map(tuple, values.tolist())))
        views = {name: len(getattr(self, name)) for name in self.vector_names}
        if len(set(views.values())) > 1:
            raise ValueError(f"all vectors must be of the same views, got {views}")

    def _check_source(self, half_mm: Sequence[float]) -> None:
        """Refuse a source that does not have the whole image before it.

        Raises:
            ValueError: a source within or behind the image, or a detector at the source.
        """
        source = self.vectors("source_mm")
        ahead = self.vectors("detector_mm") - source
        length = np.linalg.norm(ahead, axis=1, keepdims=True)
        if (length == 0).any():
            raise ValueError(f"the detector of view {int(np.argmin(length))} lies in its source")
        ahead /= length
        depth = -(source * ahead).sum(1) - np.abs(ahead) @ np.array(half_mm)
        if (depth <= 0).any():
            view = int(np.argmin(depth))
            raise ValueError(
                f"the source of view {view}, at {tuple(source[view].round(3).tolist())} mm, does not have the whole "
                "image before it, in the direction of its detector: move it out, or take a smaller image"
            )

    def vectors(self, name: str) -> Array:
        """One of the fields of vectors as ``(views, axes)`` float64."""
        return np.asarray(getattr(self, name), dtype=np.float64)

    def select_views(self, views: slice) -> Self:
        """The scan with some of its views."""
        return self.replace(**{name: getattr(self, name)[views] for name in self.vector_names})


@dataclass(frozen=True, kw_only=True)
class VectorConeGeometry(VectorGeometry, VolumeRays):
    """Cone beams with a flat detector that may lie anywhere in each view.

    Args:
        image_shape: (slices, rows, columns).
        pixel_mm: voxel size, one number or (slice, row, column spacing).
        detectors: detector (rows, columns).
        source_mm: ``(views, 3)`` positions of the source, (x, y, z).
        detector_mm: ``(views, 3)`` centres of the detector.
        row_step_mm: ``(views, 3)`` from a detector element to the one in the next row.
        column_step_mm: ``(views, 3)`` to the next in its row.

    Raises:
        ValueError: a wrong shape, a value that is not finite, a source that does not have the whole volume before it,
            or a detector without an area.
        TypeError: an argument of the wrong type.
    """

    kind: ClassVar[str] = "cone_vectors"
    vector_names: ClassVar[tuple[str, ...]] = ("source_mm", "detector_mm", "row_step_mm", "column_step_mm")
    axes: ClassVar[int] = 3
    image_shape: tuple[int, int, int]
    pixel_mm: float | tuple[float, float, float]
    detectors: tuple[int, int]
    row_step_mm: Vectors
    column_step_mm: Vectors

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "image_shape", _checks.counts("image_shape", self.image_shape, 3))
        put(self, "pixel_mm", _checks.spacing("pixel_mm", self.pixel_mm, 3))
        put(self, "detectors", _checks.counts("detectors", self.detectors, 2))
        self._check_vectors()
        area = np.linalg.norm(np.cross(self.vectors("row_step_mm"), self.vectors("column_step_mm")), axis=1)
        if (area == 0).any():
            raise ValueError(f"row_step_mm and column_step_mm of view {int(np.argmin(area))} span no area")
        self._check_source([0.5 * n * d for n, d in zip(self.image_shape, self.voxel_zyx, strict=True)][::-1])

    @property
    def sinogram_shape(self) -> tuple[int, int, int]:
        """(views, detector rows, detector columns)."""
        return len(self.source_mm), *self.detectors

    def poses(self) -> tuple[Array, Array, Array, Array]:
        """Source, centre of element (0, 0), step to the next row and to the next column, each ``(views, 3)``, x y z."""
        source, center, row_step, column_step = (self.vectors(name) for name in self.vector_names)
        rows, columns = self.detectors
        return source, center - 0.5 * (rows - 1) * row_step - 0.5 * (columns - 1) * column_step, row_step, column_step

    def refined(self, factor: int) -> Self:
        """The same scan of a voxel grid ``factor`` times finer, to simulate data without the inverse crime."""
        factor = _checks.count("factor", factor)
        shape = tuple(n * factor for n in self.image_shape)
        return self.replace(image_shape=shape, pixel_mm=tuple(d / factor for d in self.voxel_zyx))

    @classmethod
    def from_cone(cls, geometry: ConeGeometry) -> Self:
        """A circular or helical scan as vectors, which a calibration may then change."""
        source, corner, row_step, column_step = geometry.poses()
        rows, columns = geometry.detectors
        return cls(
            image_shape=geometry.image_shape, pixel_mm=geometry.pixel_mm, detectors=geometry.detectors,
            source_mm=source, detector_mm=corner + 0.5 * (rows - 1) * row_step + 0.5 * (columns - 1) * column_step,
            row_step_mm=row_step, column_step_mm=column_step,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VectorFanGeometry(VectorGeometry):
    """Fan beams with a flat detector that may lie anywhere in the plane in each view.

    Args:
        image_shape: (rows, columns).
        pixel_mm: pixel size, one number or (row, column spacing).
        detectors: number of detector elements.
        source_mm: ``(views, 2)`` positions of the source, (x, y).
        detector_mm: ``(views, 2)`` centres of the detector.
        step_mm: ``(views, 2)`` from a detector element to the next.

    Raises:
        ValueError: a wrong shape, a value that is not finite, a source that does not have the whole image before it, or
            a step of no length.
        TypeError: an argument of the wrong type.
    """

    kind: ClassVar[str] = "fan_vectors"
    vector_names: ClassVar[tuple[str, ...]] = ("source_mm", "detector_mm", "step_mm")
    axes: ClassVar[int] = 2
    image_shape: tuple[int, int]
    pixel_mm: float | tuple[float, float]
    detectors: int
    step_mm: Vectors

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "image_shape", _checks.counts("image_shape", self.image_shape, 2))
        put(self, "pixel_mm", _checks.spacing("pixel_mm", self.pixel_mm, 2))
        put(self, "detectors", _checks.count("detectors", self.detectors))
        self._check_vectors()
        lengths = np.linalg.norm(self.vectors("step_mm"), axis=1)
        if (lengths == 0).any():
            raise ValueError(f"step_mm of view {int(np.argmin(lengths))} has no length")
        self._check_source([0.5 * n * d for n, d in zip(self.image_shape, self.pixel_rc, strict=True)][::-1])

    @property
    def pixel_rc(self) -> tuple[float, float]:
        """(row spacing, column spacing) in mm."""
        return self.pixel_mm  # type: ignore[return-value]  # a pair after validation

    @property
    def sinogram_shape(self) -> tuple[int, int]:
        """(views, detectors)."""
        return len(self.source_mm), self.detectors

    def poses(self) -> tuple[Array, Array, Array]:
        """Source, centre of element 0 and step to the next one, each ``(views, 2)``, x y."""
        source, center, step = (self.vectors(name) for name in self.vector_names)
        return source, center - 0.5 * (self.detectors - 1) * step, step

    def rays(self) -> Rays:
        """The line that each detector element measures, ``(views, detectors, 2)``."""
        source, center, step = (self.vectors(name)[:, None] for name in self.vector_names)
        index = (np.arange(self.detectors) - (self.detectors - 1) / 2)[:, None]
        direction = center + index * step - source
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        return Rays(origin=np.broadcast_to(source, direction.shape), direction=direction)

    def refined(self, factor: int) -> Self:
        """The same scan of an image grid ``factor`` times finer, to simulate data without the inverse crime."""
        factor = _checks.count("factor", factor)
        shape = tuple(n * factor for n in self.image_shape)
        return self.replace(image_shape=shape, pixel_mm=tuple(d / factor for d in self.pixel_rc))

    @classmethod
    def from_fan(cls, geometry: FanGeometry) -> Self:
        """A circular scan with a flat detector as vectors, which a calibration may then change.

        Raises:
            ValueError: a curved detector.
        """
        if geometry.detector != "flat":
            raise ValueError("a curved detector has no vectors of this kind; use backend='matrix' or 'joseph'")
        cos, sin = np.cos(geometry.angle_array)[:, None], np.sin(geometry.angle_array)[:, None]
        across, along = np.concatenate([cos, sin], 1), np.concatenate([-sin, cos], 1)
        center = geometry.sources() + geometry.source_to_detector_mm * along + geometry.detector_offset_mm * across
        return cls(
            image_shape=geometry.image_shape, pixel_mm=geometry.pixel_mm, detectors=geometry.detectors,
            source_mm=geometry.sources(), detector_mm=center, step_mm=geometry.detector_mm * across,
        )  # fmt: skip
