"""Names of files and folders from any text."""

from __future__ import annotations

import re
from collections.abc import Iterable

_OTHERS = re.compile(r"[^A-Za-z0-9=.,_-]+")
_MOST_CHARACTERS = 100
_NONE = "unnamed"


def safe_name(text: str) -> str:
    """A text with a hyphen in the place of whatever a name of a file may not hold on some system."""
    return _OTHERS.sub("-", text)


def distinct_names(texts: Iterable[str], *, taken: Iterable[str] = ()) -> list[str]:
    """A name for each text: of letters, digits and ``=.,_-``, not hidden, short, and different from the others.

    Names that differ in capitals alone count as the same, as some file systems have it. The second of equal names ends
    in ``-2``.

    Args:
        texts: in order.
        taken: names that are given to none of them.
    """
    used, found = {name.casefold() for name in taken}, []
    for text in texts:
        plain = safe_name(text)[:_MOST_CHARACTERS].strip(".-") or _NONE
        name, number = plain, 1
        while name.casefold() in used:
            number += 1
            name = f"{plain}-{number}"
        used.add(name.casefold())
        found.append(name)
    return found
