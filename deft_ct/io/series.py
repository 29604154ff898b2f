"""A CT series: a volume and the DICOM headers that a derived series inherits from."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.square_grid import SquareGrid
from deft_ct.ct.volume import Volume
from deft_ct.io.dicom_frames import slice_uid
from deft_ct.operators.findings import Finding


@dataclass(frozen=True, eq=False)
class Series:
    """A CT series: its volume, and the headers that a derived series inherits from.

    Attributes:
        volume: the slices in HU, ordered along their normal (from feet to head for the usual orientation).
        headers: the slices' DICOM headers without pixel data, in the same order.
        source: the folder, archive or file that it was read from.
        notes: what was left out while reading, in words; they may name files.
        changes: what was done to the slices or assumed of them, in words that name no file and no patient.
        findings: what speaks against the CT numbers.
    """

    volume: Volume
    headers: tuple[Dataset, ...]
    source: Path
    notes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if len(self.headers) != self.volume.shape[0]:
            raise ValueError(f"{len(self.headers)} headers for {self.volume.shape[0]} slices")

    def __len__(self) -> int:
        return len(self.headers)

    @property
    def hu(self) -> NDArray[np.float32]:
        """(Z, H, W) float32 CT numbers, HU."""
        return self.volume.hu

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of a slice."""
        return self.volume.image_shape

    @property
    def pixel_mm(self) -> float:
        """Width of a pixel in mm.

        Raises:
            ValueError: pixels are not square.
        """
        return self.volume.pixel_mm

    @property
    def z_mm(self) -> float:
        """Distance of neighbouring slices in mm."""
        return self.volume.z_mm

    @property
    def units(self) -> HounsfieldScale:
        """The attenuation scale of :meth:`attenuation`."""
        return self.volume.units

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def slice_uids(self) -> tuple[str, ...]:
        """SOPInstanceUID of every slice, in order: what seeds and provenance are tied to.

        The frames of a multi-frame image have its UID, a point and their number.
        """
        return tuple(slice_uid(header) for header in self.headers)

    def file_of(self, header: Dataset) -> str | Path:
        """The file of one of the headers, for messages; where it was read from if that is not known."""
        return getattr(header, "filename", None) or self.source

    def attenuation(self, *, nonnegative: bool = False) -> Tensor:
        """(Z, 1, H, W) float32 attenuation in 1/mm; see :meth:`deft_ct.ct.volume.Volume.attenuation`."""
        return self.volume.attenuation(nonnegative=nonnegative)

    def resampled(self, factor: int = 2) -> Series:
        """Average ``factor`` x ``factor`` pixels, and change the headers to match.

        Raises:
            ValueError: ``factor`` does not divide the image.
        """
        return self._moved(self.volume.resampled(factor))

    def fitted(self, size: int) -> Series:
        """Slices that fit into ``size`` x ``size`` square pixels, see :class:`deft_ct.ct.square_grid.SquareGrid`.

        Rows, Columns, PixelSpacing and ImagePositionPatient describe the new slices, so that a series written like this
        one has the right place in the patient. ``changes`` says what was done.

        Raises:
            ValueError: ``size`` is below 1.
        """
        grid = SquareGrid.around(self.image_shape, self.volume.spacing_mm, size)
        if grid.is_identity:
            return self
        moved = self._moved(grid.volume(self.volume))
        return replace(moved, changes=(*self.changes, grid.in_words))

    def _moved(self, volume: Volume) -> Series:
        """Another grid in the planes of the slices, whose own positions are kept."""
        shift = np.linalg.solve(self.volume.affine[:3, :3], volume.affine[:3, 3] - self.volume.affine[:3, 3])
        headers = tuple(_header_on(header, volume, shift[:2]) for header in self.headers)
        return replace(self, volume=volume, headers=headers)

    def slices(self, start: int, stop: int) -> Series:
        """The consecutive slices ``start`` <= z < ``stop`` as a separate series.

        Raises:
            ValueError: the range is empty or leaves the series.
        """
        if not 0 <= start < stop <= len(self):
            raise ValueError(f"expected 0 <= start < stop <= {len(self)}, got start={start}, stop={stop}")
        affine = self.volume.affine.copy()
        affine[:3, 3] += start * affine[:3, 2]
        volume = Volume(self.hu[start:stop], affine, self.units)
        return replace(self, volume=volume, headers=self.headers[start:stop])


def _header_on(header: Dataset, volume: Volume, shift: NDArray[np.floating]) -> Dataset:
    """The header of a slice on another grid; ``shift`` is its first pixel, in (column, row) of the old grid."""
    moved = deepcopy(header)
    cosines = np.asarray(header.ImageOrientationPatient, float)
    row_mm, column_mm = (float(v) for v in header.PixelSpacing)
    position = np.asarray(header.ImagePositionPatient, float)
    position = position + shift[0] * column_mm * cosines[:3] + shift[1] * row_mm * cosines[3:]
    moved.Rows, moved.Columns = volume.image_shape
    moved.PixelSpacing = [DSfloat(v, auto_format=True) for v in volume.spacing_mm]
    moved.ImagePositionPatient = [DSfloat(float(v), auto_format=True) for v in position]
    return moved
