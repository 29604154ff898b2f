"""Noise power spectrum of the error in uniform regions: how much noise there is, and how coarse it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deft_ct.evaluation.metrics import Floats, Mask

__all__ = ["NoisePower", "noise_power", "noise_power_of_images", "uniform_tiles"]

TILE_PX = 16
"""Side of a region of interest. Frequencies are resolved to ``1 / (16 pixel_mm)``."""


@dataclass(frozen=True, kw_only=True)
class NoisePower:
    """A radial noise power spectrum, see :func:`noise_power`.

    Attributes:
        frequency: ``(K,)`` in 1/mm, above zero and up to the Nyquist frequency ``1 / (2 pixel_mm)``.
        power: ``(K,)`` in (unit of the image)^2 mm^2.
        variance: mean square of the noise, which is the integral of the two-dimensional spectrum.
    """

    frequency: NDArray[np.float64]
    power: NDArray[np.float64]
    variance: float

    @property
    def mean_frequency(self) -> float:
        """``sum f P(f) / sum P(f)`` of the radial spectrum, in 1/mm (AAPM TG-233, f_av); NaN without any noise."""
        total = float(self.power.sum())
        return float((self.frequency * self.power).sum()) / total if total else float("nan")

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise, in the unit of the image."""
        return float(np.sqrt(self.variance))


def uniform_tiles(flat: Mask, *, side_px: int = TILE_PX) -> list[tuple[int, int]]:
    """Squares that lie in a uniform region, side by side and without overlap.

    Args:
        flat: ``(H, W)``, where the true image has no structure.
        side_px: of a square.

    Returns:
        (row, column) of the upper left pixel of each square, from the upper left on.
    """
    rows, columns = flat.shape
    if min(rows, columns) < side_px:
        return []
    below = np.pad(flat, ((1, 0), (1, 0))).cumsum(0, dtype=np.int64).cumsum(1)
    inside = below[side_px:, side_px:] - below[:-side_px, side_px:] - below[side_px:, :-side_px]
    full = inside + below[:-side_px, :-side_px] == side_px**2
    free = np.ones_like(full)
    found: list[tuple[int, int]] = []
    for row, column in zip(*np.nonzero(full), strict=True):
        if free[row, column]:
            found.append((int(row), int(column)))
            free[max(0, row - side_px + 1) : row + side_px, max(0, column - side_px + 1) : column + side_px] = False
    return found


def noise_power(error: Floats, tiles: list[tuple[int, int]], *, pixel_mm: float, side_px: int = TILE_PX) -> NoisePower:
    """Spectrum of the error, averaged over square regions.

    The spectrum of a region of ``n`` pixels of side ``p`` is ``p^2 / n |DFT|^2`` after a plane was subtracted from it,
    so that its sum times the area ``1 / (n p^2)`` of a frequency bin is the variance. It is averaged over rings of
    width ``1 / (side p)`` (AAPM task group 233, Samei et al. 2019, doi:10.1002/mp.13763).

    Args:
        error: ``(H, W)``, reconstruction minus truth.
        tiles: see :func:`uniform_tiles`.
        pixel_mm: side of a pixel; if it is NaN, so are frequencies and powers.
        side_px: of a region.

    Raises:
        ValueError: there is no region.
    """
    if not tiles:
        raise ValueError("a noise power spectrum needs at least one uniform region")
    cut = np.stack([error[r : r + side_px, c : c + side_px] for r, c in tiles]).astype(np.float64)
    y, x = (np.indices((side_px, side_px)) - (side_px - 1) / 2).reshape(2, -1)
    # Constant, row and column are orthogonal on a square, so the plane is a projection.
    basis = np.stack([np.ones_like(x), y, x])
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    flat = cut.reshape(len(cut), -1)
    rest = (flat - flat @ basis.T @ basis).reshape(cut.shape)
    power = (np.abs(np.fft.fft2(rest)) ** 2).mean(0) * pixel_mm**2 / side_px**2
    steps = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side_px, 1 / side_px)] * 2, indexing="ij"))
    rings = np.rint(steps).astype(int)
    last = side_px // 2
    kept = (rings >= 1) & (rings <= last)
    counts = np.bincount(rings[kept], minlength=last + 1)[1:]
    radial = np.bincount(rings[kept], power[kept], minlength=last + 1)[1:] / counts
    return NoisePower(
        frequency=np.arange(1, last + 1) / (side_px * pixel_mm), power=radial,
        variance=float(np.square(rest).mean()),
    )  # fmt: skip


def noise_power_of_images(error: Floats, flat: Mask, *, pixel_mm: NDArray[np.float64]) -> list[NoisePower | None]:
    """The spectrum of every image.

    Args:
        error: ``(N, H, W)``, reconstruction minus truth.
        flat: ``(N, H, W)``, where the true images have no structure.
        pixel_mm: ``(N,)``.

    Returns:
        A spectrum for each image; None where no region fits.
    """
    tiles = [uniform_tiles(region) for region in flat]
    return [
        noise_power(image, places, pixel_mm=float(width)) if places else None
        for image, places, width in zip(error, tiles, pixel_mm, strict=True)
    ]
