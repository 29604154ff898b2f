"""Slices of a volume as JPEG pictures of codes from 0 to 255, which a page turns into values again.

Codes are finer where it matters, such as in soft tissue, so that a page can show any window of them. JPEG changes the
values by some HU; the page says by how many, and the DICOM and NIfTI files hold the exact ones. Without a loss, the
layers of a hundred slices of 512 x 512 pixels are larger than a page that is mailed may be.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CODES = 256
_GRID = 2**16


@dataclass(frozen=True, eq=False)
class ToneCurve:
    """How values become codes.

    Attributes:
        values: the value of every code, ``(256,)``, rising. Values in between go to the nearest code, those outside to
            the first and the last.

    Raises:
        ValueError: there are not 256 of them, or they do not rise.
    """

    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.values.shape != (CODES,) or not (np.diff(self.values) > 0).all():
            raise ValueError(f"expected {CODES} values that rise, got {self.values}")

    @classmethod
    def through(cls, knots: Sequence[tuple[float, float]]) -> ToneCurve:
        """A curve of straight pieces.

        Args:
            knots: value and share of all codes, from 0 to 1, of the end of each piece.
        """
        values, shares = np.asarray(knots, np.float64).T
        return cls(np.interp(np.linspace(0, 1, CODES), shares, values))

    @classmethod
    def around_zero(cls, low: float, high: float, scale: float) -> ToneCurve:
        """A curve whose steps grow with the distance from 0, beginning at ``scale``: an inverse hyperbolic sine."""
        return cls(scale * np.sinh(np.linspace(np.arcsinh(low / scale), np.arcsinh(high / scale), CODES)))

    def codes(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The nearest codes."""
        low, high = self.values[[0, -1]]
        places = (np.asarray(values, np.float32) - np.float32(low)) * np.float32((_GRID - 1) / (high - low))
        return self._table[np.clip(places, 0, _GRID - 1).astype(np.int32)]

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        """The codes of a fine grid of values: a search for each pixel takes five times as long."""
        grid = np.linspace(self.values[0], self.values[-1], _GRID)
        return np.rint(np.interp(grid, self.values, np.arange(CODES))).astype(np.uint8)


@dataclass(frozen=True)
class Fineness:
    """How well slices are kept.

    Attributes:
        shrink: so many pixels of a side are averaged to one.
        quality: of JPEG, 1 to 95.
    """

    shrink: int
    quality: int


def encoded(image: NDArray[np.floating], curve: ToneCurve, fineness: Fineness) -> str:
    """A slice ``(H, W)`` as base64 of a grey JPEG picture."""
    content = io.BytesIO()
    picture = Image.fromarray(curve.codes(shrunk(image, fineness.shrink)))
    picture.save(content, "JPEG", quality=fineness.quality, optimize=True, progressive=True)
    return base64.b64encode(content.getvalue()).decode("ascii")


def decoded(text: str, curve: ToneCurve) -> NDArray[np.float64]:
    """The values that a page shows of :func:`encoded`."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        values: NDArray[np.float64] = curve.values[np.asarray(picture)]
    return values


def shrunk(image: NDArray[np.floating], factor: int) -> NDArray[np.floating]:
    """Averages of ``factor`` x ``factor`` pixels; those at the lower and right end may be of fewer."""
    if factor == 1:
        return image
    rows, columns = (-(-n // factor) for n in image.shape)
    padding = [(0, n * factor - old) for n, old in zip((rows, columns), image.shape, strict=True)]
    padded = np.pad(image, padding, mode="edge")
    means: NDArray[np.floating] = padded.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
    return means
