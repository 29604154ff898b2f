"""Lists of texts of HDF5 files that are not trusted: fixed and any length, caps, and what is no text."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from deft_ct.io import child_reader, hdf5_texts
from deft_ct.io.child_reader import RefusedError, texts
from deft_ct.io.errors import ReadError
from deft_ct.io.hdf5_texts import read_texts
from deft_ct.io.untrusted import HDF5File

WORDS = ["a", "", "chain B", "Å"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "x.h5"
    with h5py.File(target, "w") as file:
        file.create_dataset("any", data=WORDS, dtype=h5py.string_dtype(), chunks=(3,), compression="gzip")
        file.create_dataset("deep/fixed", data=np.array([w.encode() for w in WORDS]))
        file["odd"] = np.array([b"a\xff"])
        file["none"] = np.zeros(0, "S3")
        file["scalar"], file["numbers"] = "words", np.arange(3)
        file["table"] = np.array([[b"a", b"b"]])
        layout = h5py.VirtualLayout((2,), "S3")
        layout[:] = h5py.VirtualSource("other.h5", "data", (2,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("far", shape=(2,), dtype="S3", external=[("other.raw", 0, 6)])
    return target


def test_texts_of_fixed_and_of_any_length(path: Path) -> None:
    file = HDF5File(path)
    assert read_texts(file, "any") == WORDS and read_texts(file, "deep/fixed") == WORDS
    assert read_texts(file, "odd") == ["a\ufffd"] and read_texts(file, "none") == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("scalar", "type object"), ("numbers", "not a list of texts"), ("table", "not real numbers"),
        ("deep", "not a list"), ("nothing", "holds no 'nothing'"), ("virtual", "virtual dataset"),
        ("far", "external storage"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_texts_is_said(path: Path, name: str, why: str) -> None:
    with pytest.raises(ReadError, match=why):
        read_texts(HDF5File(path), name)


def test_the_child_refuses_by_itself(path: Path) -> None:
    """It does not rely on what was listed before: the file may have changed."""
    request = {"path": str(path), "name": "any", "shape": [4], "bytes": 1000}
    for name, why in (("virtual", "virtual"), ("far", "external storage"), ("table", "not a list of texts")):
        with pytest.raises(RefusedError, match=why):
            list(texts(request | {"name": name}))
    with pytest.raises(RefusedError, match="changed while it was read"):
        list(texts(request | {"shape": [5]}))
    with pytest.raises(RefusedError, match="more than 9 bytes"):
        list(texts(request | {"bytes": 9}))
    assert [m["texts"] for m, _ in texts(request | {"bytes": 10})] == [WORDS]


def test_long_texts_and_many_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / "long.h5"
    with h5py.File(long, "w") as file:
        file.create_dataset("x", data=["ok", "b" * (child_reader.TEXT_BYTES + 1)], dtype=h5py.string_dtype())
    with pytest.raises(ReadError, match="text 1 has 65537 bytes; at most 65536"):
        read_texts(HDF5File(long), "x")
    monkeypatch.setattr(hdf5_texts, "TEXTS_BYTES", 3)
    with pytest.raises(ReadError, match="declares 4 texts; at most 3"):
        read_texts(HDF5File(path), "any")


def test_one_text_that_stands_for_gibibytes_is_refused(tmp_path: Path) -> None:
    """A fixed length that the file declares and never stores."""
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(2**31 - 1)
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
        plan.set_chunk((1,))
        h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((2,)), plan)
    with pytest.raises(ReadError, match="more memory than its size allows"):
        read_texts(HDF5File(path), "x")


def test_long_lists_come_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_reader, "TEXT_BYTES", 7)
    request = {"path": str(path), "name": "any", "shape": [4], "bytes": 1000}
    assert [m["texts"] for m, _ in texts(request)] == [WORDS[:3], WORDS[3:]]
