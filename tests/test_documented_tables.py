"""Figures are compared with a page, and written into it where that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from documented_tables import Pages, page_says, table_after, table_holds

PAGE = """# Results

DEFT gains 3.21 dB over TV on
all 58 slices. At 20 views it gains 1,234.5 dB over TV.
It is -0.23 dB behind.

| method | dB | s |
| --- | ---: | ---: |
| TV | 34.44 | |
| **DEFT** | **37.66** | 0.35 |

The end.
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page in a folder of its own."""
    monkeypatch.setattr(Pages, "root", tmp_path)
    monkeypatch.setattr(Pages, "writing", False)
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


@pytest.fixture
def written(page: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, where figures are written."""
    monkeypatch.setattr(Pages, "writing", True)
    return page


def test_a_sentence_is_found_across_lines(page: Path) -> None:
    page_says("page.md", "gains 3.21 dB over TV on all 58 slices.", "at 20 views it".capitalize())
    with pytest.raises(AssertionError, match=r"does not say.*3\.22"):
        page_says("page.md", "gains 3.21 dB over TV", "gains 3.22 dB over TV")
    assert page.read_text(encoding="utf-8") == PAGE


def test_a_table_with_other_cells_is_told(page: Path) -> None:
    rows = [["TV", "34.44", ""], ["DEFT", "37.66", "0.35"]]
    table_holds("page.md", "# Results", rows)
    table_holds("page.md", "| method |", rows, head=True)
    for wrong, words in (([rows[0], ["DEFT", "37.67", "0.35"]], "37.66.*stored are.*37.67"), (rows[:1], "other rows")):
        with pytest.raises(AssertionError, match=words):
            table_holds("page.md", "# Results", wrong)
    assert page.read_text(encoding="utf-8") == PAGE


def test_figures_of_a_sentence_are_written_and_nothing_else(written: Path) -> None:
    page_says("page.md", "gains 3.5 dB over TV on all 49 slices.", "At 20 views it gains 2 dB", "It is +0.1 dB behind.")
    changed = PAGE.replace("3.21", "3.5").replace("58", "49").replace("1,234.5", "2").replace("-0.23", "+0.1")
    assert written.read_text(encoding="utf-8") == changed


def test_of_two_sentences_the_one_that_is_more_alike_is_written(written: Path) -> None:
    twice = "At 20 views it gains 1.0 dB.\nAt 60 views it gains 2.0 dB.\n"
    written.write_text(twice, encoding="utf-8")
    page_says("page.md", "At 60 views it gains 3.0 dB.")
    assert written.read_text(encoding="utf-8") == twice.replace("2.0", "3.0")
    with pytest.raises(AssertionError, match="does not say"):
        page_says("page.md", "At 40 views it gains 9.0 dB.")


def test_words_are_left_to_people(written: Path) -> None:
    with pytest.raises(AssertionError, match="does not say"):
        page_says("page.md", "DEFT loses 3.21 dB")
    assert written.read_text(encoding="utf-8") == PAGE


def test_cells_are_written_and_bold_ones_stay_bold(written: Path) -> None:
    table_holds("page.md", "# Results", [["TV", "34.44", "0.5"], ["DEFT", "38.00", ""]])
    changed = PAGE.replace("| 34.44 | |", "| 34.44 | 0.5 |").replace("**37.66** | 0.35 |", "**38.00** | |")
    assert written.read_text(encoding="utf-8") == changed
    assert table_after("page.md", "# Results") == [["TV", "34.44", "0.5"], ["DEFT", "38.00", ""]]
