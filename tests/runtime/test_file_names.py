"""Names of files from texts: safe, and different from each other."""

from __future__ import annotations

import pytest

from deft_ct.runtime.file_names import distinct_names, safe_name


def test_a_name_holds_nothing_that_a_system_forbids() -> None:
    assert safe_name("dps:steps=3, a/b\\c\n*") == "dps-steps=3,-a-b-c-"
    assert distinct_names(["deft:estimate=samples", "sr4, seed 1"]) == ["deft-estimate=samples", "sr4,-seed-1"]


@pytest.mark.parametrize("text", ["", ".", "..", "../..", "/etc", ".hidden", "a" * 400, "\0", "ünïcode", "é", "x."])
def test_no_name_leads_elsewhere_or_is_hidden(text: str) -> None:
    (name,) = distinct_names([text])
    assert name and name.isascii() and len(name) <= 100 and not set(name) & set("/\\\0:")
    assert not name.startswith(".") and not name.endswith(".")


def test_names_differ_even_where_capitals_do_not_count() -> None:
    assert distinct_names(["a:b", "a/b", "A-B", "a-b-2"]) == ["a-b", "a-b-2", "A-B-3", "a-b-2-2"]
    assert distinct_names(["Truth", "x"], taken=["truth"]) == ["Truth-2", "x"]
    assert distinct_names(["a" * 101, "a" * 102]) == ["a" * 100, "a" * 100 + "-2"]
