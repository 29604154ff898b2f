"""The files of a folder, and what of it could not be looked into."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from deft_ct.runtime.printable import printable


def visible_files(folder: Path, unread: Callable[[str], None] | None = None) -> list[Path]:
    """The files below a folder in the order of their paths.

    Hidden files and folders are left out: what a killed run left behind lies in one, for example. Links to folders are
    not followed, because they may lead to other patients or in a circle.

    Args:
        folder: where to look.
        unread: called with a sentence for each folder that cannot be read and each link that is not followed.
    """
    say = unread or (lambda _: None)
    found: list[Path] = []

    def refused(error: OSError) -> None:
        where = _below(folder, Path(error.filename))
        say(f"the folder {where} cannot be read ({error.strerror}): slices may be missing")

    for here, below, names in os.walk(folder, onerror=refused):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in below:
            if Path(here, name).is_symlink():
                say(f"{_below(folder, Path(here, name))} is a link to a folder and was not followed: name its target")
        found += [Path(here, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _below(folder: Path, path: Path) -> str:
    return printable(path.relative_to(folder) if path != folder and path.is_relative_to(folder) else path)
