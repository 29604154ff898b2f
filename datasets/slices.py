"""What every data set of CT images yields: slices in HU with their pixel size and where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.data_split import DataSplit


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


@runtime_checkable
class SliceData(Protocol):
    """A data set of slices of one size, as problems need it."""

    @property
    def name(self) -> str:
        """Of the data, for people."""

    @property
    def split(self) -> DataSplit | None:
        """Which part of the data it is; None if that is not known."""

    @property
    def every(self) -> int:
        """Only every k-th slice of the whole data was kept."""

    @property
    def limit(self) -> int | None:
        """Of these, at most so many were kept."""

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of every slice."""

    @property
    def patients(self) -> list[str]:
        """The patient, or another source, of each slice."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[CTSlice]: ...

    def content_hash(self) -> str:
        """SHA-256 of the slices and where they come from; the place of the files does not count."""


@dataclass(frozen=True)
class SliceSeries:
    """The slices of one series, all of them.

    Args:
        name: of the series.
        patient: or another source.
        hu: (N, H, W) CT numbers.
        pixel_mm: width of a pixel.
        z_mm: (N,) position of each slice along z; NaN if unknown.
        indices: (N,) place of each slice in its series; 0, 1, ... by default.
    """

    name: str
    patient: str
    hu: NDArray[np.float32]
    pixel_mm: float
    z_mm: NDArray[np.float32]
    indices: Sequence[int] | None = None


class SliceStack:
    """Slices of several series in memory, in the order given.

    Args:
        name: of the data.
        series: of slices of one size, at least one slice.
        split: which part of the data it is.
        every: keep every k-th slice of the whole list.
        limit: of these, keep at most so many.

    Raises:
        ValueError: no slice, slices of different sizes, or ``every`` or ``limit`` < 1.
    """

    def __init__(
        self,
        name: str,
        series: Sequence[SliceSeries],
        *,
        split: DataSplit | None = None,
        every: int = 1,
        limit: int | None = None,
    ) -> None:
        if every < 1 or (limit is not None and limit < 1):
            raise ValueError(f"every and limit must be at least 1, got {every} and {limit}")
        shapes = {one.hu.shape[1:] for one in series}
        if len(shapes) != 1:
            raise ValueError(f"{name} holds slices of {len(shapes)} sizes, expected one: {sorted(shapes)}")
        self.name, self.split, self.every, self.limit = name, split, every, limit
        places = [(one, n) for one in series for n in range(len(one.hu))]
        self._kept = list(enumerate(places))[::every][:limit]
        if not self._kept:
            raise ValueError(f"{name} holds no slices")

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[CTSlice]:
        return (self[n] for n in range(len(self)))

    def __getitem__(self, n: int) -> CTSlice:
        """Slice ``n`` of those kept."""
        position, (one, row) = self._kept[n]
        return CTSlice(
            hu=torch.from_numpy(one.hu[row].astype(np.float32))[None],
            pixel_mm=one.pixel_mm,
            group=one.name,
            index=row if one.indices is None else int(one.indices[row]),
            position=position,
            z_mm=float(one.z_mm[row]),
        )

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of every slice."""
        height, width = self._kept[0][1][0].hu.shape[1:]
        return height, width

    @property
    def patients(self) -> list[str]:
        """The patient, or another source, of each slice."""
        return [one.patient for _, (one, _) in self._kept]

    def content_hash(self) -> str:
        """SHA-256 of the kept slices: CT numbers, pixel sizes, series, patients and places."""
        about = [(s.group, s.index, s.position, s.pixel_mm) for s in self]
        return content_digest([about, self.patients, *(s.hu for s in self)])
