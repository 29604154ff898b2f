"""The commands of a Typer app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaf_commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its path, without the groups."""
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
    for name, child in (children or {}).items():
        yield from leaf_commands(child, f"{path} {name}".strip())
