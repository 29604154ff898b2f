"""Progress bars: one look for the whole package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(description: str, total: int, *, enabled: bool) -> Iterator[Ticker]:
    """Show a bar with the time left while the block runs.

    Args:
        description: what is being done.
        total: number of ticks.
        enabled: False shows nothing.
    """
    columns = (
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, disable=not enabled) as bar:
        task = bar.add_task(description, total=total)
        yield Ticker(lambda count: bar.advance(task, count))


class Ticker:
    """Counts work that is done."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def __call__(self, count: int = 1) -> None:
        """Report ``count`` more units of work."""
        self._advance(count)
