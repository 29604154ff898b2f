"""``--config``: options of a command from a YAML file, under the names that they have on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from deft_ct.runtime.printable import printable
from deft_ct.runtime.read_error import ReadError
from deft_ct.runtime.yaml_file import read_yaml


def take_from_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a file the defaults of a command; those on the command line go before them.

    Args:
        context: of the command; its other options are not read yet.
        path: a YAML file with options without their dashes, for example ``max-memory: 3G``. A list repeats an option.

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is not YAML, or holds an option that the command does not have.
    """
    if path is None or context.resilient_parsing:
        return path
    if not _is_file(path):
        raise FileNotFoundError(f"--config: there is no file {printable(path, 200)}")
    content = read_yaml(path, "a file of options")
    options = [one for one in context.command.params if one.param_type_name == "option" and one.name != "config"]
    names = {option.lstrip("-"): one for one in options for option in one.opts if option.startswith("--")}
    if not isinstance(content, Mapping):
        raise ReadError(path, "is not a file of options: expected lines such as `views: 60`")
    if unknown := sorted(str(name) for name in content if name not in names):
        raise ReadError(path, f"unknown option {', '.join(unknown)}; known: {', '.join(sorted(names))}")
    found = {str(names[name].name): _value(path, name, content[name], names[name]) for name in content}
    context.default_map = {**(context.default_map or {}), **found}
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # for example a name that is too long
        return False


def _value(path: Path, name: str, value: Any, option: Any) -> Any:
    """A value in the form that the command line gives it; the option checks it."""
    switch = bool(getattr(option, "is_flag", False))
    items = value if isinstance(value, list) else [value]
    if switch != isinstance(value, bool) or value is None or any(isinstance(one, list | dict) for one in items):
        wanted = "true or false" if switch else "a value"
        raise ReadError(path, f"{name} must be {wanted}, got {str(value)[:100]}")
    if isinstance(value, list) and not option.multiple:
        raise ReadError(path, f"{name} takes one value, got a list")
    return value if switch else [str(one) for one in items] if option.multiple else str(value)


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=take_from_file,
        help="YAML file with options of this command, such as `views: 60`. Those on the command line go first.",
    ),
]
