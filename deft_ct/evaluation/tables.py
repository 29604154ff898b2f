"""Tables in Markdown: the one place that writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tabulate import tabulate

_ALIGN = {"l": "left", "r": "right"}


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, align: str | None = None) -> str:
    """A table in Markdown, its columns padded to one width.

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
    if not set(align) <= _ALIGN.keys():
        raise ValueError(f"align takes the letters l and r, got {align!r}")
    lines = [headings, *rows]
    if wrong := {len(line) for line in (*lines, align)} - {len(headings)}:
        raise ValueError(f"a table of {len(headings)} columns got a row of {sorted(wrong)} cells")
    head, *body = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    sides = [_ALIGN[side] for side in align]
    # Cells are formatted already: read as numbers, 30.10 would become 30.1.
    table: str = tabulate(body, head, tablefmt="pipe", disable_numparse=True, colalign=sides)
    return table
