"""Finished parts of a job: found again by the same job, by no other, and gone when its output is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deft_ct.runtime.content_key import ContentKey
from deft_ct.runtime.parts import Part, part_store, unfinished_folder

KEY, OTHER = ContentKey({"seed": 0, "data": {"a": 1}}), ContentKey({"seed": 1, "data": {"a": 1}})
PART = Part({"a/b": np.arange(6.0).reshape(2, 3), "c": np.array([True])}, {"start": 0, "text": "\u00e9"})


def stopped(target: Path, key: ContentKey = KEY) -> None:
    with pytest.raises(KeyboardInterrupt), part_store(target, key, {"at_once": 3}) as store:
        store.write("0", PART)
        raise KeyboardInterrupt


def test_the_same_job_goes_on_as_it_was_planned(tmp_path: Path) -> None:
    stopped(tmp_path / "out")
    with part_store(tmp_path / "out", KEY, {"at_once": 8}) as store:
        assert store.plan == {"at_once": 3} and store.discarded == ()
        found = store.read("0")
        assert found is not None and found.record == PART.record and set(found.arrays) == {"a/b", "c"}
        np.testing.assert_array_equal(found.arrays["a/b"], PART.arrays["a/b"])
        assert store.read("1") is None
    assert list(tmp_path.iterdir()) == []


def test_another_job_starts_anew_and_knows_why(tmp_path: Path) -> None:
    stopped(tmp_path / "out")
    with part_store(tmp_path / "out", OTHER, {"at_once": 8}) as store:
        assert store.plan == {"at_once": 8} and store.discarded == ("seed",) and store.read("0") is None


@pytest.mark.parametrize("damage", [b"", b"PK", b"no archive"])
def test_a_damaged_part_is_none(damage: bytes, tmp_path: Path) -> None:
    stopped(tmp_path / "out")
    path = unfinished_folder(tmp_path / "out") / "part-0.npz"
    path.write_bytes(damage)
    with part_store(tmp_path / "out", KEY, {}) as store:
        assert store.read("0") is None and not path.exists()


def test_a_damaged_record_of_the_job_starts_it_anew(tmp_path: Path) -> None:
    stopped(tmp_path / "out")
    (unfinished_folder(tmp_path / "out") / "job.json").write_text("{")
    with part_store(tmp_path / "out", KEY, {"at_once": 8}) as store:
        assert store.plan == {"at_once": 8} and store.read("0") is None


def test_nothing_stays_of_a_job_without_a_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="early"), part_store(tmp_path / "out", KEY, {}):
        raise ValueError("early")
    assert list(tmp_path.iterdir()) == []


def test_parts_lie_beside_the_folder_that_a_link_names(tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
    stopped(tmp_path / "out")
    assert unfinished_folder(tmp_path / "out") == tmp_path / "disk" / "real.unfinished"
    assert (tmp_path / "disk" / "real.unfinished" / "part-0.npz").is_file()
