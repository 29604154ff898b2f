"""The process that opens untrusted files, its functions called in this process."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from deft_ct.io import child_reader
from deft_ct.io.child_reader import RefusedError, attribute_value, attributes, matlab, places, read, resolve, tree


def _written(path: Path, fill: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def _tree(path: Path, depth: int = 3) -> dict[str, dict[str, Any]]:
    return {m["name"]: m for m, _ in tree({"path": str(path), "depth": depth, "members": 100})}


def test_groups_are_listed_as_deep_as_asked(tmp_path: Path) -> None:
    path = _written(tmp_path / "x.h5", lambda file: file.create_dataset("a/b/c/d", data=np.arange(3)))
    assert set(_tree(path, depth=2)) == {"", "a", "a/b"}
    assert set(_tree(path, depth=9)) == {"", "a", "a/b", "a/b/c", "a/b/c/d"}


def test_what_is_neither_group_nor_dataset_is_said(tmp_path: Path) -> None:
    path = _written(tmp_path / "x.h5", lambda file: file.__setitem__("kind", np.dtype("<f4")))
    assert _tree(path)["kind"]["kind"] == "other"


@pytest.mark.parametrize("raised", [OSError("bad block"), OSError()])
def test_one_damaged_object_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: OSError
) -> None:
    path = _written(tmp_path / "x.h5", lambda file: [file.__setitem__(name, np.arange(2)) for name in "ab"])
    real = child_reader._refusal

    def fails(data: h5py.Dataset) -> str | None:
        if data.name == "/a":
            raise raised
        return real(data)

    monkeypatch.setattr(child_reader, "_refusal", fails)
    found = _tree(path)
    assert found["a"]["kind"] == "damaged" and found["a"]["problem"] == (str(raised) or "OSError")
    assert found["b"]["kind"] == "dataset"


def test_memory_that_runs_out_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _written(tmp_path / "x.h5", lambda file: file.__setitem__("a", np.arange(2)))
    with monkeypatch.context() as patch:
        patch.setattr(child_reader, "_refusal", _no_memory)
        with pytest.raises(MemoryError):
            _tree(path)
        assert b"more memory" in _answer({"do": "tree", "path": str(path), "depth": 2, "members": 5}, monkeypatch)
    monkeypatch.setattr(child_reader, "attribute_value", _no_memory)
    with h5py.File(path, "a") as file, pytest.raises(MemoryError):
        file["a"].attrs["unit"] = "mm"
        attributes(file["a"])


def _no_memory(*_: Any) -> Any:
    raise MemoryError


def _answer(request: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr(child_reader, "set_limits", lambda *_: None)
    replies = io.BytesIO()
    child_reader.serve(io.BytesIO(json.dumps(request | {"seconds": 1, "memory": None}).encode() + b"\n"), replies)
    return replies.getvalue()


def test_links_are_followed_within_the_file_alone(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["group/data"] = np.arange(3)
        file["group/near"] = h5py.SoftLink("./data")
        file["far"] = h5py.SoftLink("/group/near")
        file["circle"] = h5py.SoftLink("/circle")
        file["outside"] = h5py.ExternalLink("other.h5", "/secret")

    with h5py.File(_written(tmp_path / "x.h5", fill), "r") as file:
        assert resolve(file, "far").name == resolve(file, "group/near").name == "/group/data"
        with pytest.raises(RefusedError, match="leads nowhere"):
            resolve(file, "circle")
        with pytest.raises(RefusedError, match="external link to another file"):
            resolve(file, "outside")
        with pytest.raises(KeyError, match="'group/data' is not a group"):
            resolve(file, "group/data/deeper")


def test_attributes_are_json_or_a_reason(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["bytes"] = np.bytes_(b"a\xff")
        file.attrs["list"] = np.array([1.5, 2.5])
        file.attrs["texts"] = np.array(["x", "y"], dtype=h5py.string_dtype())
        file.attrs["complex"] = 1j

    with h5py.File(_written(tmp_path / "x.h5", fill), "r") as file:
        found = attributes(file)
    assert found["bytes"] == ["value", "a\ufffd"] and found["list"] == ["value", [1.5, 2.5]]
    assert found["texts"] == ["value", ["x", "y"]]
    assert found["complex"] == ["problem", "it is a complex, not text or numbers"]
    assert attribute_value([np.int16(3), b"z"]) == [3, "z"]


def test_a_large_attribute_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_reader, "ATTRIBUTE_BYTES", 8)
    with h5py.File(_written(tmp_path / "x.h5", lambda f: f.attrs.__setitem__("a", np.zeros(2))), "r") as file:
        assert attributes(file)["a"] == ["problem", "it takes 16 bytes"]


def _fill_odd(file: h5py.File) -> None:
    file["text"] = "words"
    file["empty"] = h5py.Empty("<f4")
    layout = h5py.VirtualLayout((2,), "<f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", (2,))
    file.create_virtual_dataset("virtual", layout)
    file.create_dataset("numbers", data=np.arange(6, dtype="<i2").reshape(3, 2))


@pytest.mark.parametrize(
    ("name", "why"), [("text", "not real numbers"), ("empty", "is empty"), ("virtual", "virtual dataset")]
)
def test_values_that_are_no_numbers_of_this_file_are_refused(tmp_path: Path, name: str, why: str) -> None:
    path = _written(tmp_path / "x.h5", _fill_odd)
    request = {"path": str(path), "name": name, "shape": [2], "dtype": "<f4", "chosen": []}
    for ask in (read, places):
        with pytest.raises(RefusedError, match=f"'{name}': .*{why}"):
            list(ask(request))


def test_a_dataset_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "x.h5", _fill_odd)
    request = {"path": str(path), "name": "numbers", "shape": [3, 3], "dtype": "<i2", "chosen": []}
    for ask in (read, places):
        with pytest.raises(RefusedError, match="changed while it was read"):
            list(ask(request))
        with pytest.raises(RefusedError, match="changed while it was read"):
            list(ask(request | {"shape": [3, 2], "dtype": "<i4"}))
    (message, content), *more = read(request | {"shape": [3, 2], "chosen": [[0, 3, 2], [1, 2, 1]]})
    assert message == {"bytes": 4} and content.tolist() == [[1], [5]] and not more


def test_matlab_values_of_every_kind(tmp_path: Path) -> None:
    scipy.io.savemat(
        tmp_path / "x.mat",
        {"a": np.arange(3.0), "flag": np.array(True), "n": 4, "word": "abc", "cells": np.array([1, "x"], object),
         "s": {"inner": {"z": np.eye(2)}}},
    )  # fmt: skip
    request = {"path": str(tmp_path / "x.mat"), "names": ["a", "flag", "n", "word", "cells", "s"]}
    (head, _), *blocks = matlab(request)
    values = head["values"]
    assert values["n"] == {"value": 4} and values["word"] == {"value": "abc"} and values["cells"] is None
    assert values["flag"]["value"] in (1, True)
    assert values["s"] == {"struct": {"inner": {"struct": {"z": {"array": 1}}}}}
    assert [block[1].tolist() for block in blocks] == [[0, 1, 2], [[1, 0], [0, 1]]]
    assert head["arrays"] == [[[3], "<f8"], [[2, 2], "<f8"]]


def test_nested_structures_end_somewhere() -> None:
    class Struct:
        _fieldnames = ("again",)

    value: Any = 1.0
    for _ in range(20):
        outer = Struct()
        outer.again = value  # type: ignore[attr-defined]
        value = outer
    with pytest.raises(RefusedError, match="nested too deeply"):
        child_reader._value(value, [], 0)
    assert child_reader._value(np.float32(0.5), [], 0) == {"value": 0.5}
    assert child_reader._value(2.5, [], 0) == {"value": 2.5}


def test_the_program_serves_its_input_and_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library prints does not get between the messages."""
    served: list[bytes] = []

    def serve(requests: Any, replies: Any) -> None:
        os.write(1, b"noise of a library\n")
        replies.write(b"answer\n")
        replies.flush()
        served.append(requests.read())

    monkeypatch.setattr(child_reader, "serve", serve)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"requests")))
    kept, before = os.dup(1), signal.getsignal(signal.SIGINT)
    with (tmp_path / "out").open("wb") as out:
        try:
            os.dup2(out.fileno(), 1)
            child_reader.main()
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            signal.signal(signal.SIGINT, before)
    assert served == [b"requests"] and (tmp_path / "out").read_bytes() == b"answer\n"
