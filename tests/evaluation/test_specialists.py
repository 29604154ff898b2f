"""One network for many tasks against specialists."""

from __future__ import annotations

from deft_ct.evaluation.specialists import against_specialists


def test_a_single_specialist_has_no_other_to_be_compared_with() -> None:
    ((name, own, best, beaten),) = against_specialists({"a": {"any": [30.0, 31.0], "a": [30.5, 31.4]}}, "any")
    assert name == "a" and own.startswith("-0.45") and (best, beaten) == ("", "0 of 0")


def test_the_best_other_specialist_is_named_and_clear_wins_are_counted() -> None:
    row = {"any": [30.0, 31.0, 32.0], "a": [31.0, 32.0, 33.0], "b": [28.0, 29.1, 30.1], "c": [29.9, 31.2, 31.8]}
    ((_, own, best, beaten),) = against_specialists({"a": row}, "any")
    assert own.startswith("-1.00") and best.startswith("+0.03") and best.endswith("(c)")
    assert beaten == "1 of 2"
