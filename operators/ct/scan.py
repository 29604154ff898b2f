"""What all scan geometries share: their rays, the view angles, copies with changes, and JSON."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np

from deft_ct.operators.ct import _checks
from deft_ct.operators.ct.rays import Array, Rays


class RayGeometry(abc.ABC):
    """A set of rays through an image or a volume: what a ray transform needs of a scan."""

    @property
    @abc.abstractmethod
    def sinogram_shape(self) -> tuple[int, ...]:
        """Shape of the data of one image, views first."""

    @abc.abstractmethod
    def rays(self) -> Rays:
        """The line that each detector element measures."""

    @abc.abstractmethod
    def select_views(self, views: slice) -> Self:
        """The scan with some of its views."""


class VolumeRays(RayGeometry):
    """Rays through a volume, from a source to the elements of a flat detector in each view."""

    image_shape: tuple[int, int, int]
    pixel_mm: float | tuple[float, float, float]
    detectors: tuple[int, int]

    @property
    @abc.abstractmethod
    def sinogram_shape(self) -> tuple[int, int, int]:
        """(views, detector rows, detector columns)."""

    @abc.abstractmethod
    def poses(self) -> tuple[Array, Array, Array, Array]:
        """Source, centre of element (0, 0), step to the next row and to the next column, each ``(views, 3)``, x y z."""

    @property
    def voxel_zyx(self) -> tuple[float, float, float]:
        """(slice, row, column spacing) in mm."""
        return self.pixel_mm  # type: ignore[return-value]  # a triple after validation

    def rays(self) -> Rays:
        """The line that each detector element measures: ``(views, rows, columns, 3)``; large for large detectors."""
        source, corner, row_step, column_step = (a[:, None, None, :] for a in self.poses())
        rows, columns = np.arange(self.detectors[0])[:, None, None], np.arange(self.detectors[1])[:, None]
        direction = corner + rows * row_step + columns * column_step - source
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        return Rays(origin=np.broadcast_to(source, direction.shape), direction=direction)


@dataclass(frozen=True, kw_only=True)
class DescribedRays(RayGeometry):
    """Rays that follow from the fields of a dataclass: copies with changes, and JSON."""

    kind: ClassVar[str]

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed.

        Raises:
            TypeError: an unknown field.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if unknown := set(changes) - set(values):
            raise TypeError(f"{type(self).__name__} has no field {sorted(unknown)}")
        return type(self)(**(values | changes))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``geometry_from_dict`` restores an equal geometry."""
        return {"kind": self.kind} | {f.name: _lists(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`.

        Raises:
            ValueError: the dictionary describes another kind of geometry, or holds unknown fields.
        """
        rest = dict(values)
        kind = rest.pop("kind", cls.kind)
        known = {f.name for f in fields(cls)}
        if kind != cls.kind or set(rest) - known:
            raise ValueError(f"not a {cls.kind} geometry: kind {kind!r}, unknown fields {sorted(set(rest) - known)}")
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in rest.items()})


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True)
class ScanGeometry(DescribedRays):
    """A circular scan; see the subclasses.

    Args:
        views: number of equally spaced views over ``[start_angle, start_angle + angular_range)``.
        angles: view angles in radians, instead of ``views``; in any order.
        start_angle: angle of the first view, radians; only with ``views``.
        angular_range: angle that the views cover, end excluded, radians; only with ``views``.
    """

    views: int | None = None
    angles: Sequence[float] | np.ndarray | None = field(default=None, repr=False)
    start_angle: float = field(default=0.0, compare=False, repr=False)
    angular_range: float = field(default=math.pi, compare=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "start_angle", _checks.finite("start_angle", self.start_angle))
        put(self, "angular_range", _checks.positive("angular_range", self.angular_range))
        angles = _checks.angle_tuple(self.views, self.angles, self.start_angle, self.angular_range)
        put(self, "angles", angles)
        put(self, "views", len(angles))

    @property
    def angle_array(self) -> Array:
        """View angles as ``(views,)`` float64."""
        return np.asarray(self.angles, dtype=np.float64)

    @property
    def sinogram_shape(self) -> tuple[int, ...]:
        """Shape of the data of one image, views first."""
        raise TypeError(f"{type(self).__name__} is only a base class: use a parallel, fan or cone geometry")

    def rays(self) -> Rays:
        """The line that each detector element measures."""
        raise TypeError(f"{type(self).__name__} is only a base class: use a parallel, fan or cone geometry")

    def select_views(self, views: slice) -> Self:
        """The scan with some of its views."""
        return self.replace(angles=self.angle_array[views])

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; changing the views drops the angles that they replace.

        Raises:
            TypeError: an unknown field.
        """
        if {"views", "start_angle", "angular_range"} & set(changes):
            changes.setdefault("angles", None)
        elif "angles" in changes:
            changes["views"] = None
        return super().replace(**changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``geometry_from_dict`` restores an equal geometry."""
        out = super().to_dict()
        number, span = len(self.angle_array), self.angular_range
        if out["angles"] == (self.start_angle + span * np.arange(number) / number).tolist():
            out["angles"] = None
        else:
            del out["start_angle"], out["angular_range"]
        return out
