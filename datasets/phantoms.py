"""Phantoms of ellipses: images on any grid and, in closed form, the line integrals of any scan geometry.

The line integral through an ellipse is its value times the length of the chord, an exact expression; so these phantoms
test a ray transform and a reconstruction without another projector, and without the inverse crime.

Coordinates as in :mod:`deft_ct.operators.ct.geometry`: mm, x to the right, y up, origin at the centre of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct.geometry import PlanarGeometry


@dataclass(frozen=True, kw_only=True)
class Ellipse:
    """One ellipse of constant value.

    Args:
        value: what it adds, for example attenuation in 1/mm.
        center_mm: (x, y) of its centre, y up.
        half_axes_mm: half lengths of its two axes.
        angle: rotation of the first axis against x, anticlockwise, radians.

    Raises:
        ValueError: a half axis that is not positive, or a value that is not finite.
    """

    value: float
    center_mm: tuple[float, float]
    half_axes_mm: tuple[float, float]
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.value, *self.center_mm, *self.half_axes_mm, self.angle)):
            raise ValueError(f"an ellipse needs finite numbers, got {self}")
        if min(self.half_axes_mm) <= 0:
            raise ValueError(f"half_axes_mm must be positive, got {self.half_axes_mm}")

    def normalised(self, points: np.ndarray, *, vectors: bool = False) -> np.ndarray:
        """Coordinates in which the ellipse is the unit circle.

        Args:
            points: (..., 2) positions in mm, or directions.
            vectors: ``points`` are directions: turn and scale, but do not move them.
        """
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        moved = points if vectors else points - np.asarray(self.center_mm)
        turned: np.ndarray = moved @ np.array([[cos, -sin], [sin, cos]]) / np.asarray(self.half_axes_mm)
        return turned

    def chords(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Length inside the ellipse, in mm, of lines through ``origin`` along unit vectors ``direction``, (..., 2)."""
        start, step = self.normalised(origin), self.normalised(direction, vectors=True)
        square = (step**2).sum(-1)
        # |start + t step|^2 = 1 has roots that are 2 sqrt(discriminant) / square apart; the cross product keeps its
        # digits for a source far away.
        cross = start[..., 0] * step[..., 1] - start[..., 1] * step[..., 0]
        lengths: np.ndarray = 2 * np.sqrt(np.maximum(square - cross**2, 0.0)) / square
        return lengths


@dataclass(frozen=True)
class EllipsePhantom:
    """A sum of ellipses.

    Args:
        ellipses: what is added up; may overlap.
    """

    ellipses: tuple[Ellipse, ...]

    @classmethod
    def disc(cls, radius_mm: float, value: float, center_mm: tuple[float, float] = (0.0, 0.0)) -> Self:
        """One homogeneous disc; its line integral at distance s is ``2 value sqrt(radius^2 - s^2)``."""
        return cls((Ellipse(value=value, center_mm=center_mm, half_axes_mm=(radius_mm, radius_mm)),))

    @classmethod
    def shepp_logan(cls, width_mm: float, value: float = 0.02) -> Self:
        """The modified Shepp-Logan head (Shepp and Logan 1974; contrasts of Toft 1996).

        Args:
            width_mm: side of the square that it is drawn in; the head fills 0.92 of it.
            value: of the skull; the brain has 0.2 of it.
        """
        half = width_mm / 2
        return cls(
            tuple(
                Ellipse(
                    value=value * v,
                    center_mm=(x * half, y * half),
                    half_axes_mm=(a * half, b * half),
                    angle=math.radians(t),
                )
                for v, a, b, x, y, t in _SHEPP_LOGAN
            )
        )

    @classmethod
    def random(
        cls, generator: torch.Generator, width_mm: float, *, count: int | None = None, max_value: float = 0.02
    ) -> Self:
        """Random ellipses inside the inscribed circle of a square, as used to train and test without real data.

        Args:
            generator: source of all randomness.
            width_mm: side of the square.
            count: number of ellipses; 5 to 20, drawn, when None.
            max_value: values are drawn from -0.4 to 1 times this; use ``image(...).clamp_min(0)`` for attenuation.
        """
        if count is None:
            count = int(torch.randint(5, 21, (), generator=generator))
        u = torch.rand(count, 6, generator=generator, dtype=torch.float64).numpy()
        ellipses = []
        for row in u:
            a, b = 0.02 * width_mm + row[:2] * 0.18 * width_mm
            radius, phi = math.sqrt(row[2]) * (0.5 * width_mm - max(a, b)), 2 * math.pi * row[3]
            ellipses.append(
                Ellipse(
                    value=float(max_value * (1.4 * row[5] - 0.4)),
                    center_mm=(radius * math.cos(phi), radius * math.sin(phi)),
                    half_axes_mm=(float(a), float(b)),
                    angle=float(math.pi * row[4]),
                )
            )
        return cls(tuple(ellipses))

    def image(self, image_shape: tuple[int, int], pixel_mm: float, *, oversampling: int = 4) -> Tensor:
        """The phantom averaged over pixels.

        Args:
            image_shape: (H, W).
            pixel_mm: width of a pixel.
            oversampling: points along each side of a pixel that are averaged.

        Returns:
            (1, H, W) float32 in the unit of the values.
        """
        (h, w), fine = image_shape, oversampling
        y = ((h * fine - 1) / 2 - np.arange(h * fine)) * pixel_mm / fine
        x = (np.arange(w * fine) - (w * fine - 1) / 2) * pixel_mm / fine
        points = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), -1)
        total = np.zeros(points.shape[:2])
        for ellipse in self.ellipses:
            total += ellipse.value * ((ellipse.normalised(points) ** 2).sum(-1) <= 1)
        return torch.from_numpy(total.reshape(h, fine, w, fine).mean((1, 3)).astype(np.float32))[None]

    def sinogram(self, geometry: PlanarGeometry) -> Tensor:
        """Exact line integrals along the rays of a parallel or fan geometry.

        Returns:
            (1, views, detectors) float32; dimensionless for values in 1/mm.
        """
        rays = geometry.rays()
        total = sum((e.value * e.chords(rays.origin, rays.direction) for e in self.ellipses), np.zeros(()))
        return torch.from_numpy(np.broadcast_to(total, geometry.sinogram_shape).astype(np.float32))[None]


# value, half axes, centre, rotation in degrees, on the square [-1, 1]^2
_SHEPP_LOGAN = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)
