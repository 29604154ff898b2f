"""Tables and sentences of Markdown pages, and the stored results that their figures are made from.

A page must hold what the stored results say. ``pytest tests/test_documented_*.py --write-figures`` (``make figures``)
replaces the figures that differ; the words around them are left to people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FIGURE = r"(?<![\w.,])[+-]?\d+(?:,\d{3})*(?:\.\d+)?"


class Pages:
    """The pages that are held to the stored results: under ``root``, and written if ``writing`` is set."""

    root = ROOT
    writing = False


@cache
def stored(name: str) -> Any:
    """A file of benchmarks/results."""
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())


def _read(page: str) -> str:
    return (Pages.root / page).read_text(encoding="utf-8")


def _lines_of_table(page: str, words: str, head: bool) -> tuple[list[str], int]:
    """All lines of a page, and the number of the first row below the head of the first table after some words."""
    text = _read(page)
    assert text.count(words) == 1, f"{page} has {words!r} {text.count(words)} times"
    at = text.index(words) + (0 if head else len(words))
    before, lines = text[:at].count("\n"), text.splitlines()
    first = next(number for number in range(before, len(lines)) if lines[number].startswith("|"))
    return lines, first + 2


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]


def table_after(page: str, words: str, *, head: bool = False) -> list[list[str]]:
    """The first table below some words of a page, without its head; bold signs are dropped.

    With ``head``, the words are the beginning of the table's head.
    """
    lines, first = _lines_of_table(page, words, head)
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append(_cells(line))
    return rows


def equal(shown: str, expected: str) -> bool:
    """Whether two cells are equal."""
    return shown == expected


def table_holds(
    page: str,
    words: str,
    rows: Sequence[Sequence[str]],
    *,
    head: bool = False,
    same: Callable[[str, str], bool] = equal,
) -> None:
    """The first table below some words has these rows. ``same`` compares two cells.

    Rows and columns are never added: the table must have as many, and only cells are written. Bold type stays where it
    was, so a new best value has to be marked by hand.
    """
    shown = table_after(page, words, head=head)
    assert [len(row) for row in shown] == [len(row) for row in rows], f"{page}, {words!r}: other rows or columns"
    if Pages.writing:
        lines, first = _lines_of_table(page, words, head)
        for number, row in enumerate(rows, first):
            lines[number] = _with_cells(lines[number], row, same)
        (Pages.root / page).write_text("\n".join(lines) + "\n", encoding="utf-8")
        shown = table_after(page, words, head=head)
    for cells, row in zip(shown, rows, strict=True):
        assert all(map(same, cells, row)), f"{page}, {words!r}: {cells}, stored are {list(row)}"


def _with_cells(line: str, row: Sequence[str], same: Callable[[str, str], bool]) -> str:
    """A row of a table with other cells. Bold cells stay bold, and spaces stay."""
    parts = line.strip().strip("|").split("|")
    for number, (part, cell) in enumerate(zip(parts, row, strict=True)):
        plain = part.strip().replace("**", "")
        if not same(plain, cell):
            bold = "**" if part.strip().startswith("**") else ""
            parts[number] = f" {bold}{cell}{bold} " if cell else " "
    return f"|{'|'.join(parts)}|"


def page_says(page: str, *sentences: str) -> None:
    """The page holds each of these texts, wherever its lines end."""
    missing = _missing(page, sentences)
    if Pages.writing:
        for sentence in missing:
            _write_figures(page, sentence)
        missing = _missing(page, sentences)
    assert not missing, f"{page} does not say: {missing}"


def _missing(page: str, sentences: Sequence[str]) -> list[str]:
    text = " ".join(_read(page).split())
    return [one for one in sentences if " ".join(one.split()) not in text]


def _write_figures(page: str, sentence: str) -> None:
    """Replace the figures of a sentence that stands on a page with others; of several, the one that is most alike."""
    text, figures = _read(page), re.findall(FIGURE, sentence)
    literals = [r"\s+".join(map(re.escape, part.split(" "))) for part in re.split(FIGURE, sentence)]
    found = list(re.finditer(f"({FIGURE})".join(literals), text))
    alike = [sum(map(equal, one.groups(), figures)) for one in found]
    if not found or alike.count(max(alike)) > 1:
        return
    best = found[alike.index(max(alike))]
    for number in range(len(figures), 0, -1):
        start, end = best.span(number)
        text = text[:start] + figures[number - 1] + text[end:]
    (Pages.root / page).write_text(text, encoding="utf-8")
