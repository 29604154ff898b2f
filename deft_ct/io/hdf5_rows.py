"""Single rows of a large HDF5 dataset, as fast as the file allows.

Where a dataset is stored without compression or by gzip, the child process that opens the file (see
:mod:`deft_ct.io.untrusted`) tells once where its chunks lie, and this process takes the bytes of a row from there. It
inflates them by zlib, to the declared size of a chunk and no further; no other library parses anything here. Rows that
are compressed otherwise come from the child.
"""

from __future__ import annotations

import itertools
import math
import zlib
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.reading_process import answering
from deft_ct.io.untrusted import BASE_BYTES, SLOWEST_READ, HDF5File

_KEPT_BYTES = 256 * 2**20
"""Most memory of the inflated chunks of a row; larger ones are left to the child."""


@dataclass(frozen=True)
class _Places:
    """Where the chunks are.

    Attributes:
        chunks: shape of a chunk.
        offsets: byte offset of each; -1: never written.
        fill: value of those that were never written.
        sizes: bytes of each in the file; None if they are not compressed.
        shuffled: whether the bytes of the values were sorted by their place before they were compressed.
    """

    chunks: tuple[int, ...]
    offsets: NDArray[np.int64]
    fill: float
    sizes: NDArray[np.int64] | None = None
    shuffled: bool = False


class HDF5Rows:
    """The rows of one dataset: what its first axis counts.

    Args:
        file: the file.
        name: of the dataset.

    Raises:
        ReadError: there is no such dataset, or it is damaged.
    """

    def __init__(self, file: HDF5File, name: str) -> None:
        item = file.item(name)
        if not file.is_dataset(name) or not item.shape:
            raise ReadError(file.path, f"'{name}' is not a dataset with rows")
        self._file, self._name = file, name
        self.shape: tuple[int, ...] = item.shape
        self._dtype = np.dtype(item.dtype)
        self._stamp = _stamp(file.path)
        self._places = _places(file, name)
        self._inflated: tuple[int, dict[tuple[int, ...], NDArray[Any]]] = (-1, {})

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, n: int) -> NDArray[Any]:
        """Row ``n`` in the type of the file, native byte order.

        Raises:
            IndexError: there is no such row.
            ReadError: the file is damaged, or changed since it was opened.
        """
        if not 0 <= n < len(self):
            raise IndexError(f"row {n} of {len(self)}")
        if self._places is None:
            found: NDArray[Any] = self._file.read(self._name, chosen=(slice(n, n + 1),))[0]
            return found
        path = self._file.path
        if _stamp(path) != self._stamp:
            raise ReadError(path, "changed while it was read; read it again when it is complete")
        row = np.empty(self.shape[1:], self._dtype)
        with path.open("rb", buffering=0) as source:
            if self._places.sizes is None:
                _gather(source, path, self._places, n, row)
            else:
                self._inflate(source, self._places, n, row)
        return row.astype(self._dtype.newbyteorder("="), copy=False)

    def _inflate(self, source: FileIO, places: _Places, n: int, row: NDArray[Any]) -> None:
        """Fill a row from compressed chunks. They are kept for the next rows, which mostly lie in the same ones."""
        depth, *sides = places.chunks
        layer = n // depth
        if self._inflated[0] != layer:
            self._inflated = (layer, {})
        kept = self._inflated[1]
        offsets = places.offsets[layer]
        for place in itertools.product(*(range(k) for k in offsets.shape)):
            target = row[tuple(slice(k * side, (k + 1) * side) for k, side in zip(place, sides, strict=True))]
            if offsets[place] < 0:
                target[...] = places.fill
                continue
            if place not in kept:
                kept[place] = _chunk(source, self._file.path, places, (layer, *place), self._dtype)
            target[...] = kept[place][n % depth][tuple(slice(0, length) for length in target.shape)]


def _chunk(
    source: FileIO, path: Path, places: _Places, place: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:  # fmt: skip
    """One chunk, inflated."""
    assert places.sizes is not None
    source.seek(int(places.offsets[place]))
    stored = source.read(int(places.sizes[place]))
    size = math.prod(places.chunks) * dtype.itemsize
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(stored, size)
    except zlib.error as error:
        raise ReadError(path, f"is damaged ({error}); is the download complete?") from error
    if len(content) != size:
        raise ReadError(path, "ends before its data; is the download complete?")
    if places.shuffled and dtype.itemsize > 1:
        content = np.frombuffer(content, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
    return np.frombuffer(content, dtype).reshape(places.chunks)


def _gather(source: FileIO, path: Path, places: _Places, n: int, row: NDArray[Any]) -> None:
    """Fill a row from the chunks that it crosses. In a chunk its part is contiguous."""
    depth, *sides = places.chunks
    offsets = places.offsets[n // depth]
    skip = (n % depth) * math.prod(sides) * row.dtype.itemsize
    part = np.empty(0, row.dtype)
    for place in itertools.product(*(range(k) for k in offsets.shape)):
        target = row[tuple(slice(k * side, (k + 1) * side) for k, side in zip(place, sides, strict=True))]
        offset = int(offsets[place])
        if offset < 0:
            target[...] = places.fill
            continue
        whole = target.shape == tuple(sides) and target.flags.c_contiguous
        if not whole and not part.size:
            part = np.empty(sides, row.dtype)
        source.seek(offset + skip)
        buffer = memoryview((target if whole else part).reshape(-1).view(np.uint8).data)
        while len(buffer):
            count = source.readinto(buffer)
            if not count:
                raise ReadError(path, "ends before its data; is the download complete?")
            buffer = buffer[count:]
        if not whole:
            target[...] = part[tuple(slice(0, length) for length in target.shape)]


def _places(file: HDF5File, name: str) -> _Places | None:
    item, limits = file.item(name), current_limits()
    request = {
        "do": "places", "path": str(file.path.absolute()), "name": name, "shape": list(item.shape),
        "dtype": item.dtype, "seconds": limits.seconds + item.stored / SLOWEST_READ * 0.1, "memory": BASE_BYTES,
    }  # fmt: skip
    with answering(file.path, request, "cannot be read as HDF5") as child:
        head = next(child.messages())
        if head["chunks"] is None:
            child.fill([])
            return None
        chunks = tuple(int(side) for side in head["chunks"])
        if len(chunks) != len(item.shape) or min(chunks) < 1:
            raise ReadError(file.path, f"'{name}' has chunks of shape {chunks}")
        grid = tuple(-(-n // side) for n, side in zip(item.shape, chunks, strict=True))
        limits.check_declared(file.path, 8 * math.prod(grid), item.stored, what=f"the chunks of '{name}'")
        offsets, sizes = np.empty(grid, np.int64), np.empty(grid, np.int64) if head["deflated"] else None
        child.fill([offsets] if sizes is None else [offsets, sizes])
    layer = math.prod(chunks[:1]) * math.prod(g * c for g, c in zip(grid[1:], chunks[1:], strict=True))
    if sizes is not None and (layer * np.dtype(item.dtype).itemsize > _KEPT_BYTES or sizes.max() > item.stored):
        return None
    return _Places(chunks, offsets, float(head["fill"]), sizes, bool(head["shuffled"]))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
