"""What a function, a record, a class or a module declares, beside a table of what it should."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any


def defaults(function: Any, names: Iterable[str]) -> dict[str, Any]:
    """Values of parameters that are left out."""
    parameters = inspect.signature(function).parameters
    return {name: parameters[name].default for name in names}


def field_defaults(record: Any, names: Iterable[str]) -> dict[str, Any]:
    """Values of fields that are left out."""
    fields = {field.name: field.default for field in dataclasses.fields(record)}
    return {name: fields[name] for name in names}


def attributes(thing: Any, names: Iterable[str]) -> dict[str, Any]:
    """Values of a class or a module."""
    return {name: getattr(thing, name) for name in names}
