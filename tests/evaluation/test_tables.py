"""The one writer of Markdown tables."""

from __future__ import annotations

import pytest

from deft_ct.evaluation.tables import markdown_table


def test_the_first_column_is_left_and_the_others_right() -> None:
    expected = "| method | dB |\n| --- | ---: |\n| tv | 30.1 |\n| fbp | 25.0 |"
    assert markdown_table(["method", "dB"], [["tv", "30.1"], ["fbp", "25.0"]]) == expected
    assert markdown_table(["a", "b"], [], ["right", "center"]).splitlines()[1] == "| ---: | :---: |"


def test_rows_of_another_length_and_unknown_alignments_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 headings"):
        markdown_table(["a", "b"], [["1", "2"], ["1"]])
    with pytest.raises(ValueError, match="align must hold left, right or center, got middle"):
        markdown_table(["a"], [], ["middle"])
