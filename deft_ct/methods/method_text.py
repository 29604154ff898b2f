"""Methods written as text: ``"name"`` or ``"name:option=value,option=value"``."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Sequence
from inspect import signature
from typing import Any

from deft_ct.methods.registry import load_reconstructor

LONGEST_LITERAL = 200
"""Characters of a value that are parsed; a deeply nested one could exhaust the parser's stack."""

_WORDS = {"true": True, "false": False, "nan": math.nan, "inf": math.inf, "-inf": -math.inf}

OF_THE_COMMAND = frozenset(signature(load_reconstructor).parameters)
"""Arguments of ``load_reconstructor`` that are not fields of a method's configuration, such as ``prior``."""


def parse_options(items: Sequence[str], *, where: str) -> dict[str, Any]:
    """``["a=1", "b=x"]`` as ``{"a": 1, "b": "x"}``.

    Args:
        items: each an option, an equals sign and a value: a Python literal, ``true``, ``false``, ``nan``, ``inf`` or
            plain text.
        where: what the items come from, for the error.

    Raises:
        ValueError: an item has no name, no equals sign or no value, or an option is there twice.
    """
    options: dict[str, Any] = {}
    for item in items:
        key, separator, value = (part.strip() for part in item.partition("="))
        if not (key and separator and value):
            raise ValueError(f"expected option=value in {where!r}, got {item!r}")
        if key in options:
            raise ValueError(f"{key} is there twice in {where!r}: give it once")
        options[key] = parse_value(value)
    return options


def parse_value(text: str) -> Any:
    """A value of an option: a Python literal if it is one, else the text itself. The method checks its type."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if len(text) > LONGEST_LITERAL:
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SyntaxWarning)  # of the parser, about "1or 2" and the like
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # TypeError: "{[]: 1}"
        return text


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """``"name"`` or ``"name:option=value,option=value"`` as a name and options.

    Raises:
        ValueError: an item is not of the form ``option=value``, or an option belongs to the command.
    """
    name, _, rest = text.strip().partition(":")
    options = parse_options([item for item in rest.split(",") if item], where=text)
    if taken := sorted(set(options) & OF_THE_COMMAND):
        raise ValueError(f"{', '.join(taken)} in {text!r} is an option of the command, not of a method")
    return name, options


def parse_methods(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Methods as text -> name and options, each method once; for what is kept or written by the name of a method.

    Raises:
        ValueError: see :func:`parse_method`; or a method is there twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, options = parse_method(text)
        if name in found:
            raise ValueError(f"{name} is there twice in {' '.join(texts)!r}: name a method once, or run twice")
        found[name] = options
    return found


def split_methods(texts: Sequence[str]) -> list[str]:
    """``["fbp,tv:strength=80,iterations=20", "dds"]`` as ``["fbp", "tv:strength=80,iterations=20", "dds"]``."""
    found: list[str] = []
    for item in (part.strip() for text in texts for part in text.split(",")):
        if found and ":" in found[-1] and "=" in item and ":" not in item:
            found[-1] += f",{item}"
        elif item:
            found.append(item)
    return found


def method_variants(text: str) -> list[str]:
    """Every combination of alternatives: ``"tv:a=1|2,b=3"`` as ``["tv:a=1,b=3", "tv:a=2,b=3"]``."""
    name, _, rest = text.partition(":")
    chosen: list[list[str]] = [[]]
    for item in filter(None, rest.split(",")):
        key, _, values = item.partition("=")
        chosen = [[*one, f"{key}={value}"] for one in chosen for value in values.split("|")]
    return [f"{name}:{','.join(one)}" if one else name for one in chosen]
