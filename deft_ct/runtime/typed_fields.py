"""Dataclasses from JSON values that are not trusted."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_LARGEST = 2**53
_SHOWN = 80


def from_values(cls: type[T], values: Any) -> T:
    """A dataclass whose fields have the types that it declares; the dataclass checks their ranges.

    Lists become tuples where a tuple is declared. A number must be finite, a whole number must be written as one, and
    True is not a number. Fields of other types (objects that were built before) are taken as they are.

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
    required = [
        name
        for name, entry in known.items()
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in values]
    if missing:
        raise ValueError(f"the key {', '.join(missing)} is missing")
    hints = get_type_hints(cls)
    return cls(**{name: fitted(value, hints[name], name) for name, value in values.items()})


def fitted(value: Any, hint: Any, name: str) -> Any:
    """The value where it is of a type; see :func:`from_values`.

    Raises:
        ValueError: it is not.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return fitted(value, option, name)
            except ValueError:
                continue
        raise ValueError(f"{name} must be {' or '.join(_named(a) for a in arguments)}, got {_shown(value)}")
    if origin is Literal:
        if not (isinstance(value, str | int) and value in arguments):
            raise ValueError(f"{name} must be one of {', '.join(map(str, arguments))}, got {_shown(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or (arguments[-1] is not ... and len(value) != len(arguments)):
            raise ValueError(f"{name} must be {_named(hint)}, got {_shown(value)}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        return tuple(
            fitted(item, kind, f"{name}[{n}]") for n, (item, kind) in enumerate(zip(value, kinds, strict=True))
        )
    if not _fits(value, origin or hint):
        raise ValueError(f"{name} must be {_named(hint)}, got {_shown(value)}")
    return value


def _fits(value: Any, kind: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) < 1e300 and math.isfinite(value)
    if kind in (str, type(None), dict, list):
        return isinstance(value, kind)
    return not isinstance(kind, type) or not dataclasses.is_dataclass(kind) or isinstance(value, kind)


def _named(hint: Any) -> str:
    words = {float: "a finite number", int: "a whole number", bool: "true or false", str: "text", dict: "an object"}
    words |= {type(None): "null", list: "a list"}
    if get_origin(hint) is tuple:
        items = get_args(hint)
        return f"a list of {_named(items[0])}" if items[-1] is ... else f"a list of {len(items)} values"
    return words.get(get_origin(hint) or hint, str(getattr(hint, "__name__", hint)))


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)[: 2 * _SHOWN]
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
