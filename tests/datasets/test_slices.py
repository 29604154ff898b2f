"""Slices of several series, and which of them are taken."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.datasets.ldct_images import LDCTImages
from deft_ct.datasets.patient_series import patient_slices
from deft_ct.datasets.slices import CTSlice, SliceStack, chosen, spread_order
from tests.datasets.test_aapm import write_slices


def one(value: float, *, side: int = 3, group: str = "a") -> tuple[CTSlice, str]:
    return CTSlice(torch.full((1, side, side + 1), value), 1.5, group, 0, 0, math.nan), f"patient {group}"


def test_a_stack_keeps_order_patients_and_shape() -> None:
    stack = SliceStack("x", [one(1.0), one(2.0, group="b"), one(3.0)], split="val", every=4, limit=9)
    assert (stack.name, stack.split, stack.every, stack.limit) == ("x", "val", 4, 9)
    assert len(stack) == 3 and stack.image_shape == (3, 4)
    assert [float(item.hu.mean()) for item in stack] == [1.0, 2.0, 3.0]
    assert stack.patients == ["patient a", "patient b", "patient a"]


def test_stacks_that_are_none() -> None:
    assert SliceStack("x", [one(1.0)]).image_shape == (3, 4)
    with pytest.raises(ValueError, match="x holds no slices"):
        SliceStack("x", [])
    with pytest.raises(ValueError, match=r"slices of 2 sizes, expected one: \[\(3, 4\), \(5, 6\)\]"):
        SliceStack("x", [one(1.0, side=5), one(1.0)])


def test_the_hash_is_that_of_all_that_counts() -> None:
    base = SliceStack("x", [one(1.0), one(2.0)]).content_hash()
    assert SliceStack("another name", [one(1.0), one(2.0)], every=2).content_hash() == base
    item = one(2.0)[0]
    changed = [
        [one(1.0), one(2.1)], [one(2.0), one(1.0)], [one(1.0)], [one(1.0), one(2.0, group="b")],
        [one(1.0), (item, "somebody else")],
        *([one(1.0), (CTSlice(**(vars(item) | change)), "patient a")] for change in (
            {"pixel_mm": 1.6}, {"index": 1}, {"position": 1}, {"group": "b"},
        )),
    ]  # fmt: skip
    hashes = {SliceStack("x", items).content_hash() for items in changed}
    assert len(hashes) == len(changed) and base not in hashes


def series(count: int, first_z: float) -> Any:
    """As much of a series as is asked for."""
    headers = [SimpleNamespace(ImagePositionPatient=[0.0, 0.0, first_z + 2.5 * n]) for n in range(count)]
    hu = np.arange(count, dtype=np.float32)[:, None, None] + np.full((1, 2, 2), first_z, np.float32)
    return SimpleNamespace(hu=hu, headers=headers, pixel_mm=0.7)


def test_slices_of_patients_know_where_they_come_from() -> None:
    read: list[str] = []

    def of(patient: str) -> Any:
        read.append(patient)
        return series(3, {"p": 100.0, "q": 200.0, "r": 300.0}[patient])

    whole = patient_slices("x", ["p", "q"], of)
    assert [(s.group, s.index, s.position, s.z_mm) for s in whole] == [
        ("p", 0, 0, 100.0), ("p", 1, 1, 102.5), ("p", 2, 2, 105.0),
        ("q", 0, 3, 200.0), ("q", 1, 4, 202.5), ("q", 2, 5, 205.0),
    ]  # fmt: skip
    assert whole.patients == ["p", "p", "p", "q", "q", "q"] and {s.pixel_mm for s in whole} == {0.7}
    assert [float(s.hu.mean()) for s in whole] == [100.0, 101.0, 102.0, 200.0, 201.0, 202.0]
    assert next(iter(whole)).hu.shape == (1, 2, 2)
    second = patient_slices("x", ["p", "q"], of, every=2)
    assert [s.position for s in second] == [0, 2, 4]
    for every, limit, message in ((0, None, "every .* got 0"), (1, 0, "limit .* got 0"), (-1, None, "every .* got -1")):
        with pytest.raises(ValueError, match=message):
            patient_slices("x", ["p"], of, every=every, limit=limit)


def test_patients_of_the_projection_data(tmp_path: Path) -> None:
    for folder in (
        "L004/study/1-Full Dose Images-1", "L004/study/2-Low Dose Images-2", "sub/C016/s/1-full dose images",
        "N123/s/2-LOW DOSE IMAGES", "X001/s/1-Full Dose Images", "L0041/s/1-Full Dose Images", "L009/s/other",
    ):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
    full, low = LDCTImages(tmp_path), LDCTImages(tmp_path, "low")
    assert (full.name, low.name) == ("ldct:full", "ldct:low")
    assert full.patients() == ("C016", "L004") and low.patients() == ("L004", "N123")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        LDCTImages(tmp_path / "none")


PATIENTS = ["a"] * 7 + ["b"] * 2 + ["c"] * 4 + ["a"]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 16, 33])
def test_the_order_has_every_number_once_and_covers_the_range_early(count: int) -> None:
    order = spread_order(count)
    assert sorted(order) == list(range(count))
    first = sorted(order[: min(count, 7)])
    gaps = [b - a for a, b in zip([-1, *first], [*first, count], strict=True)]
    assert max(gaps) <= count // 4 + 2, "seven numbers leave no gap of more than about a quarter"


def test_every_patient_gives_one_before_any_gives_two() -> None:
    counts = {limit: [PATIENTS[n] for n in chosen(PATIENTS, 1, limit)] for limit in range(1, 15)}
    assert counts[1] == ["a"] and counts[3] == ["a", "b", "c"]
    assert counts[6] == ["a", "a", "b", "b", "c", "c"]
    assert counts[8] == ["a", "a", "a", "b", "b", "c", "c", "c"], "b has no more"
    assert chosen(PATIENTS, 1, 99) == chosen(PATIENTS, 1, None) == list(range(14))


def test_a_larger_limit_keeps_the_images_of_a_smaller_one() -> None:
    for every in (1, 2, 3):
        kept = [set(chosen(PATIENTS, every, limit)) for limit in range(1, 15)]
        assert all(few <= more for few, more in pairwise(kept))
        assert all(n % every == 0 for n in kept[-1])
        assert [len(one) for one in kept] == [min(limit, len(kept[-1])) for limit in range(1, 15)]


def test_images_of_one_source_are_spread() -> None:
    assert chosen([0] * 100, 1, 3) == [25, 50, 75]
    assert chosen([0] * 100, 10, 1) == [50]


@pytest.mark.parametrize(("every", "limit"), [(0, 1), (1, 0)])
def test_bad_numbers(every: int, limit: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        chosen(PATIENTS, every, limit)


def test_patients_beyond_the_limit_are_not_read() -> None:
    read: list[str] = []

    def of(patient: str) -> Any:
        read.append(patient)
        return series(3, {"p": 100.0, "q": 200.0, "r": 300.0}[patient])

    found = patient_slices("x", ["p", "q", "r"], of, split="val", limit=2)
    assert read == ["p", "q"] and [s.group for s in found] == ["p", "q"]
    assert (found.split, found.limit) == ("val", 2)
    assert [s.index for s in patient_slices("x", ["p"], of, limit=1)] == [1], "the middle of the patient"
    assert [s.group for s in patient_slices("x", ["p", "q"], of, limit=5)] == ["p", "p", "p", "q", "q"]
    # Every fourth slice of all: the second patient gives none of its own and is passed over.
    read.clear()
    few = patient_slices("x", ["p", "q", "r"], of, every=6, limit=2)
    assert read == ["p", "q", "r"] and [s.position for s in few] == [0, 6]


def test_slices_of_the_projection_data(tmp_path: Path) -> None:
    for patient, value in (("L004", 10), ("C016", 20)):
        write_slices(tmp_path / patient / "s" / "1-Full Dose Images", patient, value, ".dcm")
    data = LDCTImages(tmp_path)
    assert float(data.series("C016").hu[0, 0, 0]) == -4
    found = data.slices(["L004", "C016"], every=2, limit=2)
    assert (found.name, found.every, found.limit) == ("ldct:full", 2, 2)
    assert [(s.group, s.position) for s in found] == [("L004", 2), ("C016", 4)]
    with pytest.raises(FileNotFoundError):
        data.series("L005")
