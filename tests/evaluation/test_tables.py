"""Markdown tables: their form, and that no other file writes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deft_ct.evaluation.tables import markdown_table

BY_HAND = re.compile(r'\| ?---|" \| "\.join|^\s*f?"\| ')


def test_the_first_column_is_left_and_the_others_right() -> None:
    table = markdown_table(["method", "PSNR"], [["fbp", "30.1"], ["a|b", "-"]])
    assert table == "| method | PSNR |\n| --- | ---: |\n| fbp | 30.1 |\n| a\\|b | - |"
    assert markdown_table(["n", "name", "x"], [], align="rlr").splitlines()[1] == "| ---: | --- | ---: |"


@pytest.mark.parametrize(
    ("rows", "align", "message"),
    [([["a"]], None, "row of \\[1\\] cells"), ([], "l", "row of"), ([], "lc", "letters l and r")],
)
def test_wrong_rows_are_refused(rows: list[list[str]], align: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        markdown_table(["a", "b"], rows, align=align)


def test_no_other_file_writes_tables_by_hand(repository_root: Path) -> None:
    own = repository_root / "deft_ct" / "evaluation" / "tables.py"
    found = [
        f"{path.relative_to(repository_root)}:{number}"
        for folder in ("deft_ct", "benchmarks", "scripts")
        for path in sorted((repository_root / folder).rglob("*.py"))
        if path != own
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BY_HAND.search(line)
    ]
    assert BY_HAND.search(own.read_text())
    assert not found, "use markdown_table:\n" + "\n".join(found)
