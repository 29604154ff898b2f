"""The commands of a Typer app, and whether they take a line as it is written."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any


def leaf_commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its path, without the groups."""
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
    for name, child in (children or {}).items():
        yield from leaf_commands(child, f"{path} {name}".strip())


def parse_line(commands: dict[str, Any], line: str) -> None:
    """Check that a line, such as `deft-ct compare --data val`, has options that its command knows, each once.

    Variables of the shell and `...` are passed over.
    """
    words = [word for word in shlex.split(line)[1:] if not word.startswith("$") and word != "..."]
    if words[0] == "benchmark" and words[1] not in ("run", "diff", "export"):
        words.insert(1, "run")
    path = " ".join(words[:2]) if " ".join(words[:2]) in commands else words[0]
    command = commands[path]
    context = command.make_context(path, [], resilient_parsing=True)
    _, _, order = command.make_parser(context).parse_args(args=words[len(path.split()) :])
    twice = {one.name for one in order if order.count(one) > 1 and not (one.multiple or one.is_flag or one.count)}
    assert not twice, f"{line}: takes one value of {twice}"
