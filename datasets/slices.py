"""What every data set of CT images yields: slices in HU with their pixel size and where they come from."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

from torch import Tensor

from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.data_split import DataSplit

T = TypeVar("T")


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


class SliceStack:
    """Slices of several series in memory, in the order given.

    Args:
        name: of the data.
        items: each slice with its patient, or another source; already chosen, see :func:`chosen`.
        split: which part of the data it is.
        every: how they were chosen, for records.
        limit: the same.

    Raises:
        ValueError: no slice, or slices of different sizes.
    """

    def __init__(
        self,
        name: str,
        items: Iterable[tuple[CTSlice, str]],
        *,
        split: DataSplit | None = None,
        every: int = 1,
        limit: int | None = None,
    ) -> None:
        self.name, self.split, self.every, self.limit = name, split, every, limit
        pairs = list(items)
        self._slices, self.patients = [item for item, _ in pairs], [patient for _, patient in pairs]
        if not pairs:
            raise ValueError(f"{name} holds no slices")
        shapes = sorted({tuple(item.hu.shape[-2:]) for item in self._slices})
        if len(shapes) > 1:
            raise ValueError(f"{name} holds slices of {len(shapes)} sizes, expected one: {shapes}")

    def __len__(self) -> int:
        return len(self._slices)

    def __iter__(self) -> Iterator[CTSlice]:
        return iter(self._slices)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of every slice."""
        height, width = self._slices[0].hu.shape[-2:]
        return height, width

    def content_hash(self) -> str:
        """SHA-256 of the slices: CT numbers, pixel sizes, series, patients and places."""
        about = [(s.group, s.index, s.position, s.pixel_mm) for s in self]
        return content_digest([about, self.patients, *(s.hu for s in self)])


def check_choice(every: int, limit: int | None) -> None:
    """Refuse numbers that choose nothing.

    Raises:
        ValueError: ``every`` or ``limit`` < 1.
    """
    for name, value in (("every", every), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def chosen(sources: Sequence[Hashable], every: int, limit: int | None) -> list[int]:
    """Places of the images that are kept: every k-th one, and of these at most ``limit``, spread over their sources.

    Each source gives one image in turn until there are enough, in the order of :func:`spread_order`. So a larger limit
    keeps the images of a smaller one.

    Args:
        sources: of each image: its patient, or the same for all where that is not known.
        every: keep every k-th image of the whole list.
        limit: of these, keep at most so many; all when None.

    Returns:
        Places in ascending order.

    Raises:
        ValueError: ``every`` or ``limit`` < 1.
    """
    check_choice(every, limit)
    places = range(0, len(sources), every)
    if limit is None:
        return list(places)
    by_source: dict[Hashable, list[int]] = {}
    for n in places:
        by_source.setdefault(sources[n], []).append(n)
    return sorted(take_turns([[own[k] for k in spread_order(len(own))] for own in by_source.values()], limit))


def take_turns(lists: Sequence[Sequence[T]], limit: int) -> list[T]:
    """One item of each list, then a second one of each, and so on, at most ``limit``."""
    most = max(map(len, lists), default=0)
    return list(islice((one[turn] for turn in range(most) for one in lists if turn < len(one)), limit))


def spread_order(count: int) -> list[int]:
    """The numbers from 0 to ``count - 1``, the middle first, then the middles of both halves, and so on."""
    order: list[int] = []
    pending = deque([(0, count)])
    while pending:
        low, high = pending.popleft()
        if low < high:
            middle = (low + high) // 2
            order.append(middle)
            pending.extend([(low, middle), (middle + 1, high)])
    return order
