"""Phantoms of ellipsoids, whose line integrals through a volume are known in closed form.

Coordinates as in :mod:`deft_ct.operators.ct.cone`: mm, x to the right, y up, z along the slices, origin at the centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct.rays import Array, Rays


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """An ellipsoid that may be turned about the z axis.

    Args:
        center_mm: (x, y, z).
        semi_axes_mm: half the lengths of the axes along its own (x, y, z), > 0.
        value: attenuation that it adds to what is there, 1/mm.
        angle: turn about z, counter-clockwise, radians.

    Raises:
        ValueError: a semi-axis that is not positive.
    """

    center_mm: tuple[float, float, float]
    semi_axes_mm: tuple[float, float, float]
    value: float
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not all(axis > 0 for axis in self.semi_axes_mm):
            raise ValueError(f"semi_axes_mm must be > 0, got {self.semi_axes_mm}")

    def normalised(self, points: Array, *, vectors: bool = False) -> Array:
        """``(..., 3)`` points (or directions) in coordinates in which the ellipsoid is the unit ball."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y, z = np.moveaxis(points if vectors else points - np.array(self.center_mm), -1, 0)
        return np.stack([cos * x + sin * y, -sin * x + cos * y, z], -1) / np.array(self.semi_axes_mm)

    def chords(self, rays: Rays) -> Array:
        """Lengths of the rays inside, mm, of the shape of the rays."""
        o, d = self.normalised(rays.origin), self.normalised(rays.direction, vectors=True)
        dd, od, oo = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1)
        return np.asarray(2 * np.sqrt(np.maximum(od**2 - dd * (oo - 1), 0)) / dd)


@dataclass(frozen=True)
class EllipsoidPhantom:
    """A sum of ellipsoids."""

    parts: tuple[Ellipsoid, ...]

    @classmethod
    def head(cls, width_mm: float, value: float = 0.02) -> Self:
        """A body with a shell, two cavities and small inserts of low contrast, after Shepp and Logan (1974).

        Args:
            width_mm: of the cube that it fills.
            value: attenuation of the body, 1/mm; water is about 0.02.
        """
        r = width_mm / 2
        table = (  # centre, semi-axes, factor of the value, turn
            ((0.0, 0.0, 0.0), (0.72, 0.9, 0.85), 1.8, 0.0),
            ((0.0, 0.0, 0.0), (0.67, 0.85, 0.8), -0.8, 0.0),
            ((0.25, 0.05, -0.05), (0.13, 0.32, 0.25), -0.6, -0.3),
            ((-0.25, 0.05, 0.05), (0.17, 0.38, 0.3), -0.6, 0.3),
            ((0.0, 0.42, 0.1), (0.22, 0.2, 0.3), 0.15, 0.0),
            ((0.0, -0.5, 0.15), (0.15, 0.08, 0.1), 0.3, 0.0),
            ((0.05, -0.5, -0.35), (0.1, 0.12, 0.15), 0.2, 0.0),
            ((-0.1, 0.1, -0.5), (0.2, 0.2, 0.1), 0.4, 0.0),
        )
        return cls(tuple(
            Ellipsoid(center_mm=_scaled(center, r), semi_axes_mm=_scaled(axes, r), value=factor * value, angle=turn)
            for center, axes, factor, turn in table
        ))  # fmt: skip

    def line_integrals(self, rays: Rays) -> Tensor:
        """Line integrals of the rays, float64, of the shape of the rays: for a cone ``(views, rows, columns)``."""
        return torch.from_numpy(sum((part.value * part.chords(rays) for part in self.parts), np.zeros(())))

    def volume(
        self, image_shape: tuple[int, int, int], voxel_zyx: tuple[float, float, float], *, oversampling: int = 3
    ) -> Tensor:
        """Means over the voxels ``(slices, rows, columns)``, float64, from ``oversampling`` points along each side."""
        axes = []
        for count, step, sign in zip(image_shape, voxel_zyx, (1, -1, 1), strict=True):
            fine = (np.arange(count * oversampling) + 0.5) / oversampling - 0.5
            axes.append(sign * (fine - (count - 1) / 2) * step)
        out = np.zeros(image_shape)
        for k in range(image_shape[0]):
            z = axes[0][k * oversampling : (k + 1) * oversampling]
            points = np.stack(np.meshgrid(z, axes[1], axes[2], indexing="ij"), -1)[..., ::-1]
            fine_slice = np.zeros(points.shape[:-1])
            for part in self.parts:
                fine_slice += part.value * ((part.normalised(points) ** 2).sum(-1) <= 1)
            blocks = fine_slice.reshape(oversampling, image_shape[1], oversampling, image_shape[2], oversampling)
            out[k] = blocks.mean((0, 2, 4))
        return torch.from_numpy(out)


def _scaled(values: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return values[0] * factor, values[1] * factor, values[2] * factor
