"""Items side by side: their results, the threads they get, and what happens when the caller stops."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from deft_ct.runtime.side_by_side import side_by_side


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_has_its_result_and_its_threads(workers: int) -> None:
    before = torch.get_num_threads()
    found = dict(
        side_by_side(lambda n: (n * n, torch.get_num_threads()), list(range(7)), workers=workers, threads=before + 1)
    )
    assert found == {n: (n * n, before + 1) for n in range(7)}
    assert torch.get_num_threads() == before


def test_workers_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=30)  # broken, with an error, unless three items meet
    assert len(list(side_by_side(lambda _: meeting.wait(), range(6), workers=3, threads=1))) == 6


def test_one_worker_takes_an_item_only_when_it_is_asked_for() -> None:
    seen: list[int] = []
    results = side_by_side(seen.append, [0, 1, 2], workers=1, threads=1)
    next(results)
    assert seen == [0]


def forever(_: object) -> None:
    """Busy until it is stopped."""
    while True:
        time.sleep(0.001)


def test_an_item_that_fails_ends_the_others() -> None:
    before, started = torch.get_num_threads(), threading.Event()

    def work(item: str) -> None:
        if item == "fails":
            started.wait(30)
            raise ValueError("this one")
        started.set()
        forever(item)

    with pytest.raises(ValueError, match="this one"):
        list(side_by_side(work, ["runs", "fails", "waits"], workers=2, threads=1))
    assert torch.get_num_threads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]


def test_a_caller_that_stops_does_not_wait_for_the_others() -> None:
    def work(item: int) -> None:
        if item:
            forever(item)

    results = side_by_side(work, [0, 1, 2, 3], workers=2, threads=1)
    assert next(results) == (0, None)
    results.close()  # type: ignore[attr-defined]  # as when the loop of the caller ends with an error
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
