"""HDF5 and MATLAB files that are not trusted, read in a child process with limits of time and memory.

``libhdf5`` loops for ever on some damaged files where no signal reaches Python, and ``scipy.io.loadmat`` crashes the
interpreter on others. A child (:mod:`deft_ct.io.child_reader`) therefore opens the file, refuses what points into other
files, and sends plain numbers and text back, never pickles. This process checks what the file declares before it takes
memory for it. :mod:`deft_ct.io.reading_process` starts the child and kills it when it is late.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.reading_process import answering

BASE_BYTES = 2**30  # address space of the interpreter, h5py and scipy, and room to work
SLOWEST_READ, _SLOWEST_INFLATION = 1e6, 1e8  # bytes per second


@dataclass(frozen=True, kw_only=True)
class HDF5Item:
    """One object of a file: what it declares.

    Attributes:
        name: its path in the file, without a leading ``/``.
        kind: ``"group"``, ``"dataset"``, ``"other"`` or ``"damaged"``.
        shape: of a dataset.
        dtype: of a dataset, in NumPy's words.
        stored: bytes on disk of a dataset.
        problem: why its numbers are not read; None where they are.
        text: whether it is a list of texts.
        attributes: ``["value", JSON]`` or ``["problem", why]`` by name.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    stored: int = 0
    problem: str | None = None
    text: bool = False
    attributes: Mapping[str, Sequence[Any]]


class HDF5File:
    """The structure of an HDF5 file, and its numbers on demand. No handle is kept open.

    Args:
        path: the file.
        depth: levels of groups that are listed.

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is not HDF5, is damaged, or exceeds the limits of time, memory or size.
    """

    def __init__(self, path: str | Path, *, depth: int = 2) -> None:
        self.path = Path(path)
        _check_file(self.path)
        limits = current_limits()
        size = self.path.stat().st_size
        request = {
            "do": "tree", "path": str(self.path.absolute()), "depth": depth, "members": limits.members,
            "seconds": limits.seconds + size / SLOWEST_READ * 0.1, "memory": BASE_BYTES,
        }  # fmt: skip
        with answering(self.path, request, "cannot be read as HDF5") as child:
            found = [_item(message) for message in child.messages()]
        self._items = {item.name: item for item in found}

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self.children())

    def children(self, parent: str = "") -> list[str]:
        """Names of the members of a group, sorted; of the file itself by default."""
        prefix = f"{parent}/" if parent else ""
        names = (name[len(prefix) :] for name in self._items if name and name.startswith(prefix))
        return sorted(name for name in names if "/" not in name)

    def item(self, name: str = "") -> HDF5Item:
        """What the file says about an object; the file itself by default.

        Raises:
            ReadError: it is missing, damaged, or lies in another file.
        """
        if name not in self._items:
            raise ReadError(self.path, f"it holds no '{name}'")
        item = self._items[name]
        if item.problem:
            raise ReadError(self.path, f"'{name}' cannot be read: {item.problem}")
        return item

    def is_dataset(self, name: str) -> bool:
        """Whether there is a dataset of this name, readable or not."""
        return name in self._items and self._items[name].kind == "dataset"

    def is_group(self, name: str) -> bool:
        """Whether there is a group of this name."""
        return name in self._items and self._items[name].kind == "group"

    def number_of_texts(self, name: str) -> int:
        """How many texts a list declares; :func:`~deft_ct.io.hdf5_texts.read_texts` reads them.

        Raises:
            ReadError: there is no list of texts of this name.
        """
        if name not in self._items or not self._items[name].text:
            self.item(name)
            raise ReadError(self.path, f"'{name}' is not a list of texts")
        return self._items[name].shape[0]

    def has_attribute(self, name: str, key: str) -> bool:
        """Whether an object has an attribute, readable or not."""
        return name in self._items and key in self._items[name].attributes

    def attribute(self, name: str, key: str, default: Any = None) -> Any:
        """An attribute as plain text, number or nested list; ``default`` where there is none.

        Raises:
            ReadError: it cannot be read.
        """
        item = self.item(name)
        if key not in item.attributes:
            return default
        state, value = item.attributes[key]
        if state != "value":
            raise ReadError(self.path, f"the attribute '{key}' of '{name or '/'}' cannot be read: {value}")
        return value

    def number(self, name: str, key: str) -> float:
        """An attribute that is one finite number (or text that says one).

        Raises:
            ReadError: it is missing or is something else.
        """
        value = self.attribute(name, key)
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise ReadError(
                self.path, f"the attribute '{key}' of '{name or '/'}' must be a finite number, got {str(value)[:80]!r}"
            )
        return number

    def read(self, name: str, *, chosen: tuple[slice, ...] = (), dtype: DTypeLike | None = None) -> NDArray[Any]:
        """The numbers of a dataset.

        Args:
            name: of the dataset.
            chosen: slices of its first axes, of positive step; all of it by default.
            dtype: to convert to; that of the file by default.

        Raises:
            ReadError: it is not a dataset of real numbers, lies in another file, is damaged, or exceeds the limits.
        """
        item = self.item(name)
        if item.kind != "dataset":
            raise ReadError(self.path, f"'{name}' is a {item.kind}, expected a dataset")
        if len(chosen) > len(item.shape):
            raise ReadError(self.path, f"'{name}' has shape {item.shape}, expected {len(chosen)} axes or more")
        stored_type = np.dtype(item.dtype).newbyteorder("=")
        wanted = stored_type if dtype is None else np.dtype(dtype)
        bounds = [part.indices(length) for part, length in zip(chosen, item.shape, strict=False)]
        shape = (*(len(range(*b)) for b in bounds), *item.shape[len(bounds) :])
        count = math.prod(shape)
        limits = current_limits()
        limits.check_declared(
            self.path, count * max(stored_type.itemsize, wanted.itemsize), item.stored, what=f"'{name}'"
        )
        content = np.empty(shape, stored_type)
        if count:
            request = {
                "do": "read", "path": str(self.path.absolute()), "name": name, "shape": list(item.shape),
                "dtype": item.dtype, "chosen": [[b[0], b[1], b[2]] for b in bounds],
                "seconds": limits.seconds + item.stored / SLOWEST_READ + content.nbytes / _SLOWEST_INFLATION,
                "memory": BASE_BYTES + 2 * content.nbytes,
            }  # fmt: skip
            with answering(self.path, request, "cannot be read as HDF5") as child:
                child.fill([content])
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks for values that are not finite
            return content if wanted == stored_type else content.astype(wanted)


def read_matlab5(path: str | Path, names: Sequence[str]) -> dict[str, Any]:
    """Variables of a MATLAB 5 file: numbers, text, arrays without axes of length 1, and structures as dictionaries.

    Args:
        path: the file.
        names: of the variables; those that are there are read. What is none of the above (cells, objects, complex
            numbers) is None.

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is not a MATLAB file, is damaged, holds none of the variables, or exceeds the limits.
    """
    source = Path(path)
    _check_file(source)
    limits = current_limits()
    size = source.stat().st_size
    room = min(limits.array_bytes, max(limits.modest_bytes, limits.inflation * size))
    request = {
        "do": "matlab", "path": str(source.absolute()), "names": list(names),
        "seconds": limits.seconds + size / SLOWEST_READ, "memory": BASE_BYTES + 2 * room,
    }  # fmt: skip
    with answering(source, request, "is not a MATLAB file") as child:
        head = next(child.messages(), None)
        if head is None:
            raise ReadError(source, "is not a MATLAB file (no content); is the download complete?")
        kinds = [(tuple(int(n) for n in shape), np.dtype(kind)) for shape, kind in head["arrays"]]
        total = sum(math.prod(shape) * kind.itemsize for shape, kind in kinds)
        limits.check_declared(source, total, size, what="arrays")
        arrays = [np.empty(shape, kind) for shape, kind in kinds]
        child.fill(arrays)
    return {name: _plain(value, arrays) for name, value in head["values"].items()}


def _plain(value: Any, arrays: list[NDArray[Any]]) -> Any:
    if value is None or "value" in value:
        return None if value is None else value["value"]
    if "array" in value:
        return arrays[value["array"]]
    return {name: _plain(field, arrays) for name, field in value["struct"].items()}


def _item(message: dict[str, Any]) -> HDF5Item:
    return HDF5Item(
        name=message["name"],
        kind=message["kind"],
        shape=tuple(message.get("shape", ())),
        dtype=message.get("dtype", ""),
        stored=message.get("stored", 0),
        problem=message.get("problem"),
        text=message.get("text", False),
        attributes=message.get("attributes", {}),
    )


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    limits, size = current_limits(), path.stat().st_size
    if size > limits.file_bytes:
        raise ReadError(path, f"it has {size} bytes; at most {limits.file_bytes} are read")
