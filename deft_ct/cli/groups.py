"""Options that several commands share, as dataclasses: written once, shown as separate options in each.

Typer has no such feature; Cyclopts has it, but every command, error message and test would have to move to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Spread every parameter that is a dataclass into one option for each of its fields.

    A default of such a parameter, an instance, gives the defaults of its options in this command.

    Args:
        function: a Typer command, annotated.

    Returns:
        The command with the flat signature that Typer reads.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    flat: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in groups:
            flat.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        group = groups[parameter.name]
        own = get_type_hints(group, include_extras=True)
        flat += [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field, parameter.default),
                annotation=own[field.name],
            )
            for field in fields(group)
        ]  # fmt: skip

    def command(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        function(**values)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    return command


def _default(field: Field[Any], instance: Any) -> Any:
    """Of the instance, if the command has one, or of the dataclass; a field without a default is a required option."""
    if instance is not inspect.Parameter.empty:
        return getattr(instance, field.name)
    return inspect.Parameter.empty if field.default is MISSING else field.default
