"""Values of configurations are checked against the types of their fields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from deft_ct.runtime.fields import LARGEST_COUNT, MaybeInfinite, check_fields, check_values


@dataclass(frozen=True, kw_only=True)
class Config:
    """One field of each kind."""

    count: int = 1
    number: float = 1.0
    open_ended: MaybeInfinite = math.inf
    switch: bool = True
    name: str = "a"
    kind: Literal["a", "b"] = "a"
    limit: float | None = None
    pair: tuple[int, int] = (1, 2)
    levels: tuple[float, ...] = ()
    other: object = None

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("count", 2.5, "a whole number"),
        ("count", 1e3, "a whole number"),
        ("count", True, "a whole number"),
        ("count", "3", "a whole number"),
        ("count", None, "a whole number"),
        ("count", LARGEST_COUNT + 1, f"a whole number up to {LARGEST_COUNT}, got a larger one"),
        pytest.param("count", 10**5000, "a whole number up to", id="count-huge"),
        ("number", math.nan, "a finite number"),
        ("number", -math.inf, "a finite number"),
        ("number", 10**400, "a finite number"),
        ("number", "1", "a finite number"),
        ("number", False, "a finite number"),
        ("open_ended", math.nan, "a number"),
        ("open_ended", "inf", "a number"),
        ("switch", "false", "True or False"),
        ("switch", 0, "True or False"),
        ("name", 1, "text"),
        ("kind", "c", "one of a, b"),
        ("kind", ["a"], "one of a, b"),
        ("limit", "x", "a finite number or None"),
        ("limit", math.inf, "a finite number or None"),
        ("pair", (1, 2, 3), "a list of 2 values"),
        ("pair", (1, 2.5), "a list where each value is a whole number"),
        ("pair", "12", "a list"),
        ("pair", 12, "a list"),
        ("levels", (1.0, math.nan), "a list where each value is a finite number"),
        ("levels", {}, "a list"),
    ],
)
def test_bad_values_are_named(field: str, value: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be {wanted}"):
        Config(**{field: value})
    with pytest.raises(ValueError, match=f"^{field} must be {wanted}"):
        check_values(Config, {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", np.int64(3)), ("number", 3), ("number", np.float32(0.5)), ("open_ended", 2.0), ("switch", False),
        ("kind", "b"), ("limit", 2.0), ("limit", None), ("pair", [3, 4]), ("levels", [1, 2.5]), ("other", "anything"),
    ],
)  # fmt: skip
def test_good_values_pass(field: str, value: Any) -> None:
    assert getattr(Config(**{field: value}), field) is value


def test_long_values_are_cut_and_unknown_names_are_for_others() -> None:
    with pytest.raises(ValueError, match=r"got 'x{99}\.\.\.$"):
        Config(kind="x" * 10**6)
    check_values(Config, {"no_such_field": math.nan})
