"""Which images of a data set are kept."""

from __future__ import annotations

from itertools import pairwise

import pytest

from deft_ct.datasets.slices import chosen, spread_order

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
