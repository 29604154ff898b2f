"""Checks of the values of a configuration against the types of its fields, before any other check looks at them.

Python does not check annotations, and values come from command lines, JSON files and notebooks. Without this check
``strength="nan"`` would meet a comparison with a number, ``iterations=2.5`` a loop, and ``nonnegative="false"`` would
count as true.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterable, Mapping
from functools import lru_cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_INFINITE = "may be infinite"

MaybeInfinite = Annotated[float, _INFINITE]
"""Type of a field that may be infinity; other numbers must be finite."""

T = TypeVar("T")
_CONTAINERS = {dict: "an object", list: "a list"}
_SHOWN = 100

LARGEST_COUNT = 2**63 - 1
"""Largest magnitude of a whole number: the tensors and generators of PyTorch take no larger ones."""


def check_fields(config: Any) -> None:
    """Check every field of a dataclass; the first thing that its ``__post_init__`` calls.

    Args:
        config: the instance.

    Raises:
        ValueError: a value is of another type, not finite, or not among the choices; the message names the field.
    """
    check_values(type(config), {item.name: getattr(config, item.name) for item in dataclasses.fields(config)})


def check_values(config_type: type, values: Mapping[str, Any]) -> None:
    """Check values that a dataclass is to be made of; as :func:`check_fields`, before it exists.

    Args:
        config_type: the dataclass. Fields of types that this function does not know are not checked.
        values: name of a field -> value.
    """
    hints = _hints(config_type)
    for name, value in values.items():
        if name in hints and (problem := _problem(hints[name], value)):
            raise ValueError(f"{name} must be {problem}, got {_shown(value)}")


def fitted(value: Any, hint: Any, name: str) -> Any:
    """A value from JSON where it is of a type; lists become tuples where one is declared.

    Args:
        value: anything.
        hint: the type; types that this module does not know fit everything, dataclasses fit their instances.
        name: of the value, for the message.

    Raises:
        ValueError: it is of another type, or a number is not finite.
    """
    if problem := _problem(hint, value):
        raise ValueError(f"{name} must be {problem}, got {_shown(value)}")
    return _with_tuples(value, hint)


def from_values(cls: type[T], values: Any) -> T:
    """A dataclass from JSON values that are not trusted; see :func:`fitted`. The dataclass checks their ranges.

    Args:
        cls: the dataclass.
        values: its fields by name.

    Raises:
        ValueError: not a mapping, unknown or missing names, or a value of another type; or what ``cls`` raises.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls} is not a dataclass")
    known = {entry.name: entry for entry in dataclasses.fields(cls) if entry.init}
    if not isinstance(values, Mapping):
        raise ValueError(f"expected an object with the keys {', '.join(known)}, got {_shown(values)}")
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise ValueError(f"unknown key {', '.join(unknown)[:_SHOWN]}; known: {', '.join(known)}")
    missing = [name for name, entry in known.items() if name not in values and _required(entry)]
    if missing:
        raise ValueError(f"the key {', '.join(missing)} is missing")
    hints = _hints(cls)
    return cls(**{name: fitted(value, hints[name], name) for name, value in values.items()})


def _required(entry: dataclasses.Field[Any]) -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def _with_tuples(value: Any, hint: Any) -> Any:
    """The value with tuples for the lists of a declared tuple, also as an alternative of a union."""
    inner = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return _with_tuples(value, next((one for one in inner if _problem(one, value) is None), None))
    if get_origin(hint) is not tuple:
        return value
    kinds = inner[:1] * len(value) if inner[-1:] == (Ellipsis,) else inner
    return tuple(_with_tuples(item, kind) for item, kind in zip(value, kinds, strict=True))


@lru_cache(maxsize=256)
def _hints(config_type: type) -> dict[str, Any]:
    try:
        return get_type_hints(config_type, include_extras=True)
    except NameError:  # a name that only type checkers see, in a dataclass of somebody else
        return {}


def _problem(kind: Any, value: Any) -> str | None:
    """What a value would have to be, in words; None if it is that."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        if inner[0] is float and _INFINITE in inner[1:]:
            return None if _is_number(value) and not math.isnan(_as_float(value)) else "a number"
        return _problem(inner[0], value)
    if origin in (Union, types.UnionType):
        found = [_problem(one, value) for one in inner]
        return None if None in found else " or ".join(str(one) for one in found)
    if origin is Literal:
        known = any(type(value) is type(choice) and value == choice for choice in inner)
        return None if known else f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        return _tuple_problem(inner, value)
    return _plain_problem(kind, value)


def _plain_problem(kind: Any, value: Any) -> str | None:
    if kind is type(None):
        return None if value is None else "None"
    if kind is bool:
        return None if isinstance(value, bool) else "True or False"
    if kind is str:
        return None if isinstance(value, str) else "text"
    if kind is int:
        if not isinstance(value, Integral) or isinstance(value, bool):
            return "a whole number"
        return None if abs(int(value)) <= LARGEST_COUNT else f"a whole number up to {LARGEST_COUNT}"
    if kind is float:
        return None if _is_number(value) and math.isfinite(_as_float(value)) else "a finite number"
    base = get_origin(kind) or kind
    if base in _CONTAINERS:
        return None if isinstance(value, base) else _CONTAINERS[base]
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and not isinstance(value, kind):
        return f"a {kind.__name__}"
    return None


def _tuple_problem(inner: tuple[Any, ...], value: Any) -> str | None:
    """Lists are welcome: JSON has no tuples."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        return "a list"
    items = tuple(value)
    if inner[-1:] == (Ellipsis,):
        kinds = inner[:1] * len(items)
    elif len(inner) != len(items):
        return f"a list of {len(inner)} values"
    else:
        kinds = inner
    found = next((problem for kind, item in zip(kinds, items, strict=True) if (problem := _problem(kind, item))), None)
    return None if found is None else f"a list where each value is {found}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) <= LARGEST_COUNT else "a larger one"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
