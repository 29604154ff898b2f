"""Markdown tables, written in one place."""

from __future__ import annotations

from collections.abc import Sequence

_RULES = {"left": "---", "right": "---:", "center": ":---:"}


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str] | None = None) -> str:
    """A Markdown table without a newline at its end.

    Args:
        headings: one for each column.
        rows: cells as text, as many in each row as there are headings.
        align: ``"left"``, ``"right"`` or ``"center"`` for each column; the first left and the others right if None.

    Raises:
        ValueError: a row or ``align`` has another length than ``headings``, or an alignment is unknown.
    """
    chosen = ["left", *["right"] * (len(headings) - 1)] if align is None else list(align)
    if unknown := sorted(set(chosen) - set(_RULES)):
        raise ValueError(f"align must hold left, right or center, got {', '.join(unknown)}")
    for name, line in [("align", chosen), *((f"row {k}", row) for k, row in enumerate(rows))]:
        if len(line) != len(headings):
            raise ValueError(f"{name} has {len(line)} cells for {len(headings)} headings")
    lines = [headings, [_RULES[name] for name in chosen], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
