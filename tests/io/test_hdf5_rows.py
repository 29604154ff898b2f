"""Rows of HDF5 datasets of every layout, against h5py."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from deft_ct.io import hdf5_rows
from deft_ct.io.errors import ReadError
from deft_ct.io.hdf5_rows import HDF5Rows
from deft_ct.io.untrusted import HDF5File

VALUES = np.random.default_rng(0).random((7, 11, 5)).astype(np.float32)


@pytest.mark.parametrize(
    "layout",
    [
        {}, {"chunks": (1, 11, 5)}, {"chunks": (3, 4, 2)}, {"chunks": True, "maxshape": (None, 11, 5)},
        {"chunks": (2, 11, 5), "compression": "gzip"}, {"chunks": (2, 3, 5), "fletcher32": True},
        {"chunks": (3, 4, 2), "compression": "gzip", "shuffle": True}, {"chunks": (2, 4, 5), "compression": "lzf"},
        {"chunks": (2, 11, 5), "compression": "gzip", "fletcher32": True},
    ],
    ids=["contiguous", "rows", "odd chunks", "growing", "gzip", "checksum", "shuffle", "lzf", "gzip and checksum"],
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


@pytest.mark.parametrize("shuffle", [False, True])
def test_compressed_rows_are_not_asked_of_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffle: bool
) -> None:
    """Only its places are: the time of a row is that of zlib."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=VALUES, chunks=(2, 4, 5), compression="gzip", shuffle=shuffle)
    opened = HDF5File(path)
    rows = HDF5Rows(opened, "data")
    monkeypatch.setattr(HDF5File, "read", None)
    for n in (3, 2, 6, 3):
        np.testing.assert_array_equal(rows.read(n), VALUES[n])
    inflated: list[int] = []
    real = hdf5_rows.zlib.decompressobj
    monkeypatch.setattr(hdf5_rows.zlib, "decompressobj", lambda: inflated.append(1) or real())
    rows.read(4), rows.read(5)
    assert len(inflated) == 3, "two rows of the same chunks"


@pytest.mark.parametrize("damage", ["bytes", "bomb"])
def test_damaged_compressed_rows(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (4, 11, 5), np.float32, chunks=(1, 11, 5), compression="gzip")
        data[...] = VALUES[:4]
        if damage == "bomb":  # more in it than a chunk holds: it is cut off, as HDF5 itself would refuse it
            data.id.write_direct_chunk((2, 0, 0), zlib.compress(VALUES[2].tobytes() + bytes(10**6)))
        where = data.id.get_chunk_info(2)
    if damage == "bytes":
        with path.open("r+b") as raw:
            raw.seek(where.byte_offset + 4)
            raw.write(b"damaged")
    rows = HDF5Rows(HDF5File(path), "data")
    np.testing.assert_array_equal(rows.read(1), VALUES[1])
    if damage == "bomb":
        np.testing.assert_array_equal(rows.read(2), VALUES[2])
    else:
        with pytest.raises(ReadError, match="is damaged"):
            rows.read(2)


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


@pytest.mark.parametrize("name", ["group", "number", "none"])
def test_what_has_no_rows(tmp_path: Path, name: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("group")
        file["number"] = 3.0
    with pytest.raises(ReadError, match=r"is not a dataset with rows|holds no 'none'"):
        HDF5Rows(HDF5File(tmp_path / "a.h5"), name)


def test_compressed_chunks_that_were_never_written(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("some", (7, 11, 5), np.float32, chunks=(2, 4, 5), compression="gzip", fillvalue=3.0)
        file["some"][4] = VALUES[4]
        file.create_dataset("short", (4, 11, 5), np.float32, chunks=(1, 11, 5), compression="gzip")
        file["short"].id.write_direct_chunk((2, 0, 0), zlib.compress(VALUES[2].tobytes()[:-4]))
    some = HDF5Rows(HDF5File(path), "some")
    np.testing.assert_array_equal(some.read(4), VALUES[4])
    assert (some.read(1) == 3.0).all() and (some.read(5) == 3.0).all()
    with pytest.raises(ReadError, match="ends before its data"):
        HDF5Rows(HDF5File(path), "short").read(2)


def test_a_file_that_ends_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=VALUES)
    rows = HDF5Rows(HDF5File(path), "data")
    np.testing.assert_array_equal(rows.read(6), VALUES[6])
    monkeypatch.setattr(hdf5_rows, "_stamp", lambda path: rows._stamp)
    with path.open("r+b") as raw:
        raw.truncate(path.stat().st_size - 100)
    with pytest.raises(ReadError, match="ends before its data"):
        rows.read(6)


def test_chunks_that_would_take_much_memory_are_left_to_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=VALUES, chunks=(2, 4, 5), compression="gzip")
    layer = 2 * 12 * 5 * 4  # chunks of two rows: three of four lines
    for most, own in ((layer, True), (layer - 1, False)):
        monkeypatch.setattr(hdf5_rows, "_KEPT_BYTES", most)
        rows = HDF5Rows(HDF5File(path), "data")
        assert (rows._places is not None) == own
        np.testing.assert_array_equal(rows.read(6), VALUES[6])
