"""MATLAB files of both encodings, version 5 and 7.3 (HDF5, arrays transposed), that are not trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deft_ct.io.errors import ReadError
from deft_ct.io.untrusted import HDF5File, read_matlab5

_HDF5_MARK, _HDF5_START = b"\x89HDF\r\n\x1a\n", 512
_LEVELS = 6


def read_matlab(path: str | Path, names: Sequence[str]) -> dict[str, Any]:
    """Those of some variables that a file holds.

    Structures are dictionaries, arrays lose their axes of length 1, single numbers and text are plain; what is none of
    these (cells, objects, complex numbers) is None.

    Args:
        path: a ``.mat`` file.
        names: of the variables.

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is not a MATLAB file, is damaged, holds none of the variables, or exceeds the limits.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    with source.open("rb") as raw:
        raw.seek(_HDF5_START)
        newer = raw.read(len(_HDF5_MARK)) == _HDF5_MARK
    return _read_hdf5(source, names) if newer else read_matlab5(source, names)


def _read_hdf5(path: Path, names: Sequence[str]) -> dict[str, Any]:
    file = HDF5File(path, depth=_LEVELS)
    found = [name for name in names if name in file]
    if not found:
        held = [name for name in file if not name.startswith("#")]
        raise ReadError(path, f"holds {held[:20]}, expected one of {list(names)}")
    return {name: _value(file, name) for name in found}


def _value(file: HDF5File, name: str) -> Any:
    if file.is_group(name):
        return {key: _value(file, f"{name}/{key}") for key in file.children(name)}
    if file.attribute(name, "MATLAB_empty", 0):
        return np.empty(0)
    if file.item(name).kind != "dataset":
        return None
    array = file.read(name).T  # MATLAB stores columns first
    if file.attribute(name, "MATLAB_class", "") == "char" or array.dtype == np.uint16:
        return "".join(chr(int(code)) for code in array.ravel())
    squeezed = array.squeeze()
    return squeezed.item() if squeezed.ndim == 0 else squeezed
