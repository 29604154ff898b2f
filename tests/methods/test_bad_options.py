"""Every option of every method with bad values: one ValueError that names it, from the library as from text."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from deft_ct.methods.method_text import parse_method, parse_options, parse_value
from deft_ct.methods.registry import Networks, method_class, methods

BAD: tuple[Any, ...] = (
    math.nan, math.inf, -math.inf, -1, -1e308, 0.5, 1e3, 2.5, 10**30, True, None, "", " ", "é", "x", "nan", "\0", [],
    [1], (), {}, {1: {}}, b"x", 1j, object(),
)  # fmt: skip
OPTIONS = [(name, item.name) for name in methods() for item in dataclasses.fields(method_class(name).config_type)]
NAMES = {"fbp": {"filter"}, "deft_online": {"reference", "guidance"}}
"""Options that are names and have their list elsewhere; none of the bad texts is in it."""


def may_pass(kind: Any, value: Any, *, infinite: bool) -> bool:
    """Whether a value is one of the kind, written without the code under test. Negative numbers never are."""
    if get_origin(kind) is Literal:
        return any(value is one or value == one for one in get_args(kind) if type(value) is type(one))
    if get_origin(kind) in (Union, types.UnionType):
        return any(may_pass(one, value, infinite=infinite) for one in get_args(kind))
    if kind is type(None):
        return value is None
    if kind is bool:
        return type(value) is bool
    if kind is int:
        return type(value) is int and 0 <= value < 2**63
    if kind is float:
        if type(value) not in (int, float):
            return False
        return value >= 0 and (infinite or value < math.inf)
    return False


@pytest.mark.parametrize(("method", "option"), OPTIONS, ids=[f"{m}:{o}" for m, o in OPTIONS])
def test_every_option_refuses_every_bad_value(method: str, option: str) -> None:
    config_type = method_class(method).config_type
    kind = get_type_hints(config_type)[option]
    infinite = (method, option) == ("dds", "gamma")
    refused = 0
    for value in BAD:
        try:
            config_type(**{option: value})
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
            refused += 1
        else:
            assert may_pass(kind, value, infinite=infinite), f"{method}:{option} takes {value!r}"
        if isinstance(value, str) and option not in NAMES.get(method, ()):
            with pytest.raises(ValueError, match=option):
                Networks().build(method, {option: value})  # before any network is loaded
    assert refused >= len(BAD) - 6


def test_the_bad_values_reach_every_method() -> None:
    assert len(OPTIONS) > 90 and {name for name, _ in OPTIONS} == set(methods())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tv:strength=nan", "tv: strength must be a finite number or None, got nan"),
        ("tv:iterations=2.5", "tv: iterations must be a whole number, got 2.5"),
        ("sirt:iterations=1e3", "sirt: iterations must be a whole number, got 1000.0"),
        ("tv:iterations=" + "9" * 30, "tv: iterations must be a whole number up to"),
        ("tv:iterations=" + "9" * 6000, "tv: iterations must be a whole number"),
        ("tv:nonnegative=no", "tv: nonnegative must be True or False or None, got 'no'"),
        ("tv:nonnegative=0", "tv: nonnegative must be True or False or None, got 0"),
        ("tv:tolerance=\0", "tv: tolerance must be a finite number"),
        ("tv:tolerance= ", "expected option=value in 'tv:tolerance= ', got 'tolerance='"),
        ("tv:=1", "expected option=value"),
        ("tv:strength", "expected option=value"),
        ("tv:strength=1,strength=2", "strength is there twice in"),
        ("cgls:tolerance={[]:1}", "cgls: tolerance must be a finite number, got '{"),
        ("tv:strength=" + "(" * 100_000, "tv: strength must be a finite number"),
        ("tv:strength=" + "-" * 191 + "1", "tv: strength must be a finite number"),
        ("tv:strength=1or 2", "tv: strength must be a finite number"),
        ("tv:strength=1__2", "tv: strength must be a finite number"),
        ("dds:gamma=nan", "dds: gamma must be a number, got nan"),
        ("dds:gamma=-inf", "dds: gamma must be above 0"),
        ("fbp:cutoff=True", "fbp: cutoff must be a finite number, got True"),
        ("fbp:filter=[1]", "fbp: filter must be text"),
        ("deft:grid=cubic", "deft: grid must be one of uniform, quadratic, log_snr, karras, got 'cubic'"),
        ("dps:norm=l3", "dps: norm must be one of l2, l2sq, got 'l3'"),
        ("", "unknown method ''"),
        (" ", "unknown method ''"),
        (":strength=1", "unknown method ''"),
        ("é", "unknown method 'é'"),
    ],
)
def test_a_method_as_text_gets_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Networks().build(*parse_method(text))


def test_values_as_text() -> None:
    assert parse_options(["a=1", "b = 2.5", "c=True", "d=false", "e=l2", "f=inf"], where="w") == {
        "a": 1, "b": 2.5, "c": True, "d": False, "e": "l2", "f": math.inf
    }  # fmt: skip
    assert math.isnan(parse_value("NaN"))
    assert parse_value("[" * 150) == "[" * 150


def test_a_method_of_somebody_else_is_checked_before_it_sees_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    from deft_ct.methods.classical.tv import TV

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Careless:
        iterations: int = 3

    class Theirs(TV):
        name = "theirs"
        config_type = Careless

    monkeypatch.setattr("deft_ct.methods.registry._REGISTERED", {"theirs": Theirs})
    with pytest.raises(ValueError, match="theirs: iterations must be a whole number, got 'x'"):
        Networks().build("theirs", {"iterations": "x"})
