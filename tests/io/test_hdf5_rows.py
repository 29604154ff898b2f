"""Rows of HDF5 datasets of every layout, against h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from deft_ct.io.errors import ReadError
from deft_ct.io.hdf5_rows import HDF5Rows
from deft_ct.io.untrusted import HDF5File

VALUES = np.random.default_rng(0).random((7, 11, 5)).astype(np.float32)


@pytest.mark.parametrize(
    "layout",
    [
        {}, {"chunks": (1, 11, 5)}, {"chunks": (3, 4, 2)}, {"chunks": True, "maxshape": (None, 11, 5)},
        {"chunks": (2, 11, 5), "compression": "gzip"}, {"chunks": (2, 3, 5), "fletcher32": True},
    ],
    ids=["contiguous", "rows", "odd chunks", "growing", "gzip", "checksum"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<u2"])
def test_every_layout(tmp_path: Path, layout: dict[str, Any], dtype: str) -> None:
    values = (VALUES * 1000).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=values, dtype=dtype, **layout)
    rows = HDF5Rows(HDF5File(tmp_path / "a.h5"), "data")
    assert len(rows) == 7
    for n in range(7):
        found = rows.read(n)
        assert found.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(found, values[n])
    with pytest.raises(IndexError):
        rows.read(7)


def test_rows_that_were_never_written(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("some", (7, 11, 5), np.float32, chunks=(2, 4, 5), fillvalue=3.0)
        file["some"][4] = VALUES[4]
        file.create_dataset("none", (7, 11), np.float32)
    opened = HDF5File(tmp_path / "a.h5")
    some = HDF5Rows(opened, "some")
    np.testing.assert_array_equal(some.read(4), VALUES[4])
    assert (some.read(1) == 3.0).all() and (some.read(5) == 3.0).all()
    assert (HDF5Rows(opened, "none").read(6) == 0.0).all()


def test_files_that_change_or_end_early(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=VALUES)
    rows = HDF5Rows(HDF5File(path), "data")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    with pytest.raises(ReadError, match="changed while it was read"):
        rows.read(6)
    with pytest.raises(ReadError):
        HDF5Rows(HDF5File(path), "data").read(6)
