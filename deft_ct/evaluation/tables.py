"""Tables in Markdown: the one place that writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_RULES = {"l": "---", "r": "---:"}


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, align: str | None = None) -> str:
    """A table in Markdown.

    Args:
        headings: of the columns.
        rows: cells, as many in each row as there are headings; a ``|`` in a cell is escaped.
        align: ``l`` or ``r`` for each column, for example ``"llr"``. When None, the first column is aligned to the left
            and the others to the right.

    Returns:
        Lines without a line break at the end.

    Raises:
        ValueError: a row or ``align`` has another number of columns, or ``align`` another letter.
    """
    align = "l" + "r" * (len(headings) - 1) if align is None else align
    if not set(align) <= _RULES.keys():
        raise ValueError(f"align takes the letters l and r, got {align!r}")
    lines = [list(headings), [_RULES[side] for side in align], *(list(row) for row in rows)]
    if wrong := {len(line) for line in lines} - {len(headings)}:
        raise ValueError(f"a table of {len(headings)} columns got a row of {sorted(wrong)} cells")
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
