"""What every data set of CT images yields: a slice in HU with its pixel size and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CTSlice:
    """One slice of a data set.

    Attributes:
        hu: (1, H, W) float32 CT numbers.
        pixel_mm: width of a pixel.
        group: name of the series that it belongs to.
        index: index of the slice in its series.
        position: index of the slice in the whole data set before any subsampling, so one that survives it.
        z_mm: position of the slice along z; NaN if unknown.
    """

    hu: Tensor
    pixel_mm: float
    group: str
    index: int
    position: int
    z_mm: float
