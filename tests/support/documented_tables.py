"""Tables of Markdown pages, and the stored results that they are made from."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@cache
def stored(name: str) -> Any:
    """A file of benchmarks/results."""
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())


def table_after(page: str, words: str, *, head: bool = False) -> list[list[str]]:
    """The first table below some words of a page, without its head; bold signs are dropped.

    With ``head``, the words are the beginning of the table's head.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count(words) == 1, f"{page} has {words!r} {text.count(words)} times"
    lines = ((words if head else "") + text.partition(words)[2]).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")])
    return rows[2:]
