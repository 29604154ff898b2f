"""Single rows of a large HDF5 dataset, as fast as the file allows.

Where a dataset is stored without compression, the child process that opens the file (see :mod:`deft_ct.io.untrusted`)
tells once where its chunks lie, and this process takes the plain bytes of a row from there; no library parses anything
here. Compressed rows come from the child.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.untrusted import BASE_BYTES, SLOWEST_READ, HDF5File, answering


@dataclass(frozen=True)
class _Places:
    """Shape of a chunk, byte offset of each (-1: never written), and the value of those that were never written."""

    chunks: tuple[int, ...]
    offsets: NDArray[np.int64]
    fill: float


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
            _gather(source, path, self._places, n, row)
        return row.astype(self._dtype.newbyteorder("="), copy=False)


def _gather(source: FileIO, path: Path, places: _Places, n: int, row: NDArray[Any]) -> None:
    """Fill a row from the chunks that it crosses. In a chunk its part is contiguous."""
    depth, *sides = places.chunks
    offsets = places.offsets[n // depth]
    skip = (n % depth) * math.prod(sides) * row.dtype.itemsize
    part = np.empty(sides, row.dtype)
    for place in itertools.product(*(range(k) for k in offsets.shape)):
        target = row[tuple(slice(k * side, (k + 1) * side) for k, side in zip(place, sides, strict=True))]
        offset = int(offsets[place])
        if offset < 0:
            target[...] = places.fill
            continue
        whole = target.shape == part.shape and target.flags.c_contiguous
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
        offsets = np.empty(grid, np.int64)
        child.fill([offsets])
    return _Places(chunks, offsets, float(head["fill"]))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
