"""Counts of network evaluations, the cost that methods are compared by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class EvaluationCount:
    """Network evaluations inside one :func:`count_evaluations` block.

    Attributes:
        total: one for each image of each call of a network.
    """

    total: int = 0


_ACTIVE: ContextVar[tuple[EvaluationCount, ...]] = ContextVar("deft_ct_evaluation_counts", default=())


def add_evaluations(count: int) -> None:
    """Add to every open count of this thread; networks call it once for each batch they evaluate."""
    for active in _ACTIVE.get():
        active.total += count


@contextmanager
def uncounted() -> Iterator[None]:
    """Leave the evaluations of a block out: those of a network that a method runs once, before it begins."""
    token = _ACTIVE.set(())
    try:
        yield
    finally:
        _ACTIVE.reset(token)


@contextmanager
def count_evaluations() -> Iterator[EvaluationCount]:
    """Count the network evaluations of a block of code.

    A count sees its own thread alone, so reconstructions that run at once in several threads and share a network keep
    separate counts. Blocks may be nested: the outer count includes the inner one.
    """
    counted = EvaluationCount()
    token = _ACTIVE.set((*_ACTIVE.get(), counted))
    try:
        yield counted
    finally:
        _ACTIVE.reset(token)
