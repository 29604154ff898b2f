"""Slices of any matrix on a square grid of a given size, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import HU_MIN
from deft_ct.ct.volume import Volume

_ROUNDING = 1e-6
_Image = TypeVar("_Image", Tensor, NDArray[Any])


@dataclass(frozen=True, kw_only=True)
class SquareGrid:
    """A grid of ``size`` x ``size`` square pixels that holds slices of another matrix.

    The slices begin at the corner of a pixel, so that a whole-number factor is the plain mean of blocks; other factors
    average by area. Larger slices are averaged, smaller ones stay as they are; what is left of the square is air on
    both sides, so that the middle of the slices stays in the middle.

    Args:
        source_shape: (H, W) of the slices.
        source_mm: distance of their rows and of their columns, mm.
        size: side of the square in pixels.
        pixel_mm: width of its pixels.
        shape: (rows, columns) of the square that the slices cover.
    """

    source_shape: tuple[int, int]
    source_mm: tuple[float, float]
    size: int
    pixel_mm: float
    shape: tuple[int, int]

    @classmethod
    def around(cls, shape: tuple[int, int], spacing_mm: tuple[float, float], size: int) -> SquareGrid:
        """The finest grid that holds the whole slice without inventing pixels.

        Raises:
            ValueError: ``size`` is below 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        sides = [count * step for count, step in zip(shape, spacing_mm, strict=True)]
        pixel = max(max(sides) / size, *spacing_mm)
        rows, columns = (min(size, max(1, math.ceil(side / pixel - _ROUNDING))) for side in sides)
        return cls(source_shape=shape, source_mm=spacing_mm, size=size, pixel_mm=pixel, shape=(rows, columns))

    @property
    def is_identity(self) -> bool:
        """Whether the slices already have these pixels (without the air around them)."""
        return self.shape == self.source_shape and math.isclose(*self.source_mm, rel_tol=1e-3)

    @property
    def margins(self) -> tuple[int, int]:
        """Rows above and columns to the left of the slices."""
        return (self.size - self.shape[0]) // 2, (self.size - self.shape[1]) // 2

    @property
    def in_words(self) -> str:
        """What happens to a slice, for notes."""
        (h, w), (dy, dx), (rows, columns) = self.source_shape, self.source_mm, self.shape
        was = f"{dx:.4g} mm" if math.isclose(dx, dy, rel_tol=1e-3) else f"{dy:.4g} x {dx:.4g} mm"
        padded = "" if rows == columns == self.size else f"; they are padded with air to {self.size} x {self.size}"
        how = "averaged" if self._factor else "resampled"
        return f"slices of {h} x {w} pixels of {was} were {how} to {rows} x {columns} of {self.pixel_mm:.4g} mm{padded}"

    @property
    def _factor(self) -> int:
        """The whole number of source pixels along both sides of a pixel; 0 if there is none."""
        factors = [self.pixel_mm / step for step in self.source_mm]
        factor = round(factors[0])
        whole = all(abs(f - factor) < 1e-3 * factor for f in factors)
        exact = all(n * factor == count for n, count in zip(self.shape, self.source_shape, strict=True))
        return factor if whole and exact else 0

    def volume(self, volume: Volume) -> Volume:
        """The slices with the pixels of this grid, without the air around them, at their place in the patient.

        Raises:
            ValueError: they are not the slices that the grid was made for.
        """
        if volume.image_shape != self.source_shape:
            raise ValueError(f"expected slices of {self.source_shape}, got {volume.image_shape}")
        if self._factor:
            return volume.resampled(self._factor)
        dy, dx = self.source_mm
        down = _averaging(self.source_shape[0], dy, self.shape[0], self.pixel_mm)
        across = _averaging(self.source_shape[1], dx, self.shape[1], self.pixel_mm)
        hu = np.einsum("ri,zij,cj->zrc", down, volume.hu, across, optimize=True)
        affine = np.array(volume.affine, np.float64)
        columns, rows = volume.affine[:3, 0] / dx, volume.affine[:3, 1] / dy
        affine[:3, 0], affine[:3, 1] = columns * self.pixel_mm, rows * self.pixel_mm
        affine[:3, 3] += 0.5 * ((self.pixel_mm - dx) * columns + (self.pixel_mm - dy) * rows)
        return Volume(hu, affine, volume.units)

    def padded(self, hu: NDArray[np.float32], fill: float = HU_MIN) -> NDArray[np.float32]:
        """(Z, rows, columns) -> (Z, size, size), ``fill`` around them."""
        top, left = self.margins
        whole = np.full((len(hu), self.size, self.size), fill, np.float32)
        whole[:, top : top + self.shape[0], left : left + self.shape[1]] = hu
        return whole

    def cropped(self, image: _Image) -> _Image:
        """(..., size, size) -> (..., rows, columns): what :meth:`padded` put into the middle."""
        top, left = self.margins
        part: _Image = image[..., top : top + self.shape[0], left : left + self.shape[1]]
        return part


def _averaging(count: int, step: float, pixels: int, pixel: float) -> NDArray[np.float64]:
    """(pixels, count) weights of a mean by length: each row sums to one, also where the last pixel is partly empty."""
    edges, new = np.arange(count + 1) * step, np.arange(pixels + 1) * pixel
    low = np.maximum(new[:-1, None], edges[None, :-1])
    high = np.minimum(new[1:, None], edges[None, 1:])
    overlap = np.clip(high - low, 0.0, None)
    weights: NDArray[np.float64] = overlap / overlap.sum(axis=1, keepdims=True)
    return weights
