"""JSON files that are not trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from deft_ct.runtime import json_object
from deft_ct.runtime.json_object import read_json_object
from deft_ct.runtime.read_error import ReadError


def test_an_object_is_read_and_what_json_has_not_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, NaN, -Infinity], "b": {"c": "d"}}', encoding="utf-8")
    assert read_json_object(tmp_path / "a.json", "a preset") == {"a": [1, None, None], "b": {"c": "d"}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"[1]", "holds a JSON list, not an object"), (b"{", "is the copy complete"), (b'{"a": "\xff"}', "complete"),
     (b"[" * 200_000, "is not a preset of deft-ct")],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ReadError, match=problem) as caught:
        read_json_object(tmp_path / "a.json", "a preset")
    assert caught.value.path == str(tmp_path / "a.json")


def test_a_file_of_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_object, "MOST_BYTES", 3 * 2**20)
    (tmp_path / "a.json").write_bytes(b" " * (3 * 2**20 + 1))
    with pytest.raises(ReadError, match="larger than 3 MiB"):
        read_json_object(tmp_path / "a.json", "a preset")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json_object(tmp_path / "none.json", "a preset")
    with pytest.raises(ReadError, match="is not a preset"):
        read_json_object(tmp_path, "a preset")
