"""Results on disk: names follow the content, and nothing is computed twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deft_ct.evaluation.store import cached_json, content_name, write_result


def test_a_name_changes_with_the_label_and_with_the_identity() -> None:
    name = content_name("one sample, DPM", {"steps": 20, "eta": 1.0})
    assert name.startswith("one_sample__DPM-")
    assert name == content_name("one sample, DPM", {"eta": 1.0, "steps": 20})
    assert len({name, content_name("one sample, DPM", {"steps": 21}), content_name("other", {"steps": 20})}) == 3


def test_a_name_changes_with_data_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.zeros(10_000)
    other = data.copy()
    other[5000] = 1  # numpy would leave it out of its text
    assert content_name("a", data) != content_name("a", other)
    before = content_name("a", data)
    monkeypatch.setattr("deft_ct.evaluation.store.result_versions", lambda: {"torch": "99"})
    assert content_name("a", data) != before


def test_a_record_is_computed_once(tmp_path: Path) -> None:
    path, calls = tmp_path / "cells" / "a.json", []

    def compute() -> dict[str, int]:
        calls.append(1)
        return {"a": len(calls)}

    assert [cached_json(path, compute) for _ in range(2)] == [{"a": 1}, {"a": 1}]
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_computation_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> dict[str, int]:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        cached_json(tmp_path / "a.json", fail)
    assert not list(tmp_path.iterdir())


def test_a_result_is_valid_json_even_without_an_interval(tmp_path: Path) -> None:
    write_result(tmp_path / "out", "x", {"low": float("nan"), "row": [1.0, float("inf")]}, "text\n")
    assert json.loads((tmp_path / "out" / "x.json").read_text()) == {"low": None, "row": [1.0, None]}
    assert (tmp_path / "out" / "x.md").read_text() == "text\n"
