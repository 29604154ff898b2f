"""Independent items side by side, each by threads of its own.

PyTorch splits every operation over all cores, and then waits for the slowest of them. Where a machine has other work,
most of the time is spent waiting. Items that do not depend on each other need not wait: each core takes one of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Stopped(BaseException):
    """Ends the work of a thread whose result nobody waits for any more."""


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads inside the block, as seen from the thread that enters it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], *, workers: int, threads: int
) -> Iterator[tuple[Item, Result]]:
    """Work on items, several at a time.

    When the caller stops early, as after Ctrl-C, or an item fails, the others that are being worked on are given up.

    Args:
        work: on one item; it may be called from any thread.
        items: what to work on.
        workers: items at a time.
        threads: of PyTorch for each of them. They may change the last bits of a result, ``workers`` does not.

    Yields:
        An item and its result, as soon as it is there.
    """
    if min(workers, len(items)) <= 1:
        for item in items:
            with torch_threads(threads):
                result = work(item)
            yield item, result
        return
    busy: set[int] = set()

    def one(item: Item) -> Result:
        busy.add(threading.get_ident())
        try:
            return work(item)
        finally:
            busy.discard(threading.get_ident())

    with torch_threads(threads):  # a new thread begins with the number that was set last
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,))
        futures = {pool.submit(one, item): item for item in items}
        try:
            for future in as_completed(list(futures)):
                yield futures.pop(future), future.result()
        finally:
            for waiting in futures:
                waiting.cancel()
            for ident in tuple(busy):
                _stop(ident)
            pool.shutdown()


def _stop(ident: int) -> None:
    """Raise :class:`_Stopped` in another thread, before its next operation."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(_Stopped))
