"""Libraries of optional extras."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class MissingExtraError(ImportError):
    """A library of an optional extra is not installed; the message names the extra."""


def optional_library(name: str, extra: str) -> ModuleType:
    """A library of an extra, imported.

    Args:
        name: of the module.
        extra: of deft-ct that brings it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name} is not installed: pip install 'deft-ct[{extra}]'") from error
