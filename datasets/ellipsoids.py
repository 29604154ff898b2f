"""Phantoms of ellipsoids: voxel values and, in closed form, the line integrals of any ray.

A ray's integral is the value times the chord, so such data come from no projector of this package and from no voxels.
Coordinates in mm are the caller's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """One ellipsoid of constant value.

    Args:
        value: what it adds, for example attenuation in 1/mm.
        center_mm: (x, y, z).
        half_axes_mm: half lengths along its own axes.
        angle: turn about z, anticlockwise from x to y, radians.

    Raises:
        ValueError: a half axis that is not positive, or a value that is not finite.
    """

    value: float
    center_mm: tuple[float, float, float]
    half_axes_mm: tuple[float, float, float]
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.value, *self.center_mm, *self.half_axes_mm, self.angle)):
            raise ValueError(f"an ellipsoid needs finite numbers, got {self}")
        if min(self.half_axes_mm) <= 0:
            raise ValueError(f"half_axes_mm must be positive, got {self.half_axes_mm}")

    def normalised(self, points: Array, *, vectors: bool = False) -> Array:
        """Coordinates in which it is the unit ball; for ``vectors`` without its place. ``(..., 3)``."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        moved = points if vectors else points - np.asarray(self.center_mm)
        turned: Array = moved @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) / np.asarray(self.half_axes_mm)
        return turned

    def chords(self, origin: Array, direction: Array) -> Array:
        """Length inside, in mm, of lines through ``origin`` along unit vectors ``direction``, ``(..., 3)``."""
        start, step = self.normalised(origin), self.normalised(direction, vectors=True)
        square, along = np.einsum("...i,...i", step, step), np.einsum("...i,...i", start, step)
        inside = 1 - np.einsum("...i,...i", start, start)
        lengths: Array = 2 * np.sqrt(np.maximum(along**2 + square * inside, 0.0)) / square
        return lengths


@dataclass(frozen=True)
class EllipsoidPhantom:
    """A sum of ellipsoids.

    Args:
        ellipsoids: what is added up; may overlap.
    """

    ellipsoids: tuple[Ellipsoid, ...]

    @classmethod
    def body(cls, mu_water: float, *, radius_mm: float = 100.0, half_length_mm: float = 400.0) -> Self:
        """A long trunk of water, with structures that lie apart in all three directions.

        Two lungs, a spine, and ten balls of -100 to 120 HU on a screw about the axis. HU as of air without
        attenuation.

        Args:
            mu_water: attenuation of water, 1/mm.
            radius_mm: half width of the trunk, which is 0.8 as deep.
            half_length_mm: half length of the trunk along z; it is to reach beyond the scan.
        """
        r = radius_mm
        parts = [
            (1000.0, (0.0, 0.0, 0.0), (r, 0.8 * r, half_length_mm), 0.0),
            (-800.0, (-0.5 * r, 0.1 * r, 0.0), (0.27 * r, 0.45 * r, half_length_mm), 0.2),
            (-800.0, (0.5 * r, 0.1 * r, 0.0), (0.27 * r, 0.45 * r, half_length_mm), -0.2),
            (400.0, (0.0, -0.55 * r, 0.0), (0.14 * r, 0.12 * r, half_length_mm), 0.0),
        ]
        balls = np.linspace(-60, 60, 10)
        for n, z in enumerate(balls):
            place = (0.14 * r * math.cos(2.4 * n), (0.15 + 0.3 * math.sin(2.4 * n)) * r, float(z))
            hu = (120.0, -100.0, 60.0)[n % 3]
            parts.append((hu, place, (0.08 * r, 0.08 * r, 0.1 * r), 0.0))
        return cls(
            tuple(
                Ellipsoid(value=hu / 1000 * mu_water, center_mm=center, half_axes_mm=axes, angle=angle)
                for hu, center, axes, angle in parts
            )
        )

    def volume(self, x: Array, y: Array, z: Array, *, oversampling: int = 3) -> NDArray[np.float32]:
        """Mean values of voxels.

        Args:
            x: ``(columns,)`` evenly spaced centres of the voxels, mm.
            y: ``(rows,)`` likewise.
            z: ``(slices,)`` likewise.
            oversampling: points along each side of a voxel that are averaged.

        Returns:
            ``(slices, rows, columns)``.
        """
        shift = (np.arange(oversampling) - (oversampling - 1) / 2) / oversampling

        def fine(centers: Array) -> Array:
            step = float(centers[1] - centers[0]) if len(centers) > 1 else 0.0
            points: Array = (centers[:, None] + shift * step).ravel()
            return points

        fx, fy = fine(x), fine(y)
        out = np.zeros((len(z), len(y), len(x)), np.float32)
        for place in range(len(z)):
            layers = fine(z)[place * oversampling : (place + 1) * oversampling]
            grid = np.stack(np.broadcast_arrays(fx[None, None], fy[None, :, None], layers[:, None, None]), -1)
            total = np.zeros(grid.shape[:-1])
            for part in self.ellipsoids:
                total += part.value * ((part.normalised(grid) ** 2).sum(-1) <= 1)
            k = oversampling
            out[place] = total.reshape(k, len(y), k, len(x), k).mean((0, 2, 4))
        return out

    def integrals(self, origin: Array, direction: Array) -> Array:
        """Line integrals of lines through ``origin`` along unit vectors ``direction``, ``(..., 3)``; dimensionless."""
        shape = np.broadcast_shapes(origin.shape, direction.shape)[:-1]
        total: Array = np.zeros(shape)
        for part in self.ellipsoids:
            total += part.value * part.chords(origin, direction)
        return total
