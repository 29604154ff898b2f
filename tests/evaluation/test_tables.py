"""Markdown tables: their form, and that no other file writes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_tables import unpadded

from deft_ct.evaluation.tables import markdown_table

BY_HAND = re.compile(r'\| ?---|" \| "\.join|^\s*f?"\| ')


def test_the_first_column_is_left_and_the_others_right() -> None:
    table = markdown_table(["method", "PSNR"], [["fbp", "30.10"], ["a|b", "-"]])
    assert unpadded(table) == "| method | PSNR |\n|:---|---:|\n| fbp | 30.10 |\n| a\\|b | - |"
    assert len({len(line) for line in table.splitlines()}) == 1
    other = markdown_table(["n", "name", "x"], [["1", "a", "2"]], align="rlr")
    assert unpadded(other).splitlines()[1] == "|---:|:---|---:|"


def test_a_table_without_rows_has_its_headings() -> None:
    assert unpadded(markdown_table(["n", "x"], [])).splitlines()[0] == "| n | x |"


@pytest.mark.parametrize(
    ("rows", "align", "message"),
    [([["a"]], None, "row of \\[1\\] cells"), ([], "l", "row of"), ([], "lc", "letters l and r")],
)
def test_wrong_rows_are_refused(rows: list[list[str]], align: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        markdown_table(["a", "b"], rows, align=align)


def test_no_other_file_writes_tables_by_hand(repository_root: Path) -> None:
    found = [
        f"{path.relative_to(repository_root)}:{number}"
        for folder in ("deft_ct", "benchmarks", "scripts")
        for path in sorted((repository_root / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BY_HAND.search(line)
    ]
    assert BY_HAND.search('"|---|"') and BY_HAND.search('" | ".join(cells)')
    assert not found, "use markdown_table:\n" + "\n".join(found)
