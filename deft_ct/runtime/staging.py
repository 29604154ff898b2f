"""Hidden folders beside a target, in which it is written until it is complete.

Such a folder is marked as ours, and locked while its process lives. A killed process leaves it behind, perhaps with
images of a patient. The next writer of the same target finds it by its name and its mark, sees that nobody holds its
lock, and removes it.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from deft_ct.runtime.durable import hidden_prefix, sync_file
from deft_ct.runtime.locks import try_lock

Inventory = dict[str, tuple[int, int]]
"""Path below a folder -> size and time of change of every file and link in it."""

_MARK, _REPLACED, _LOCK = "deft-ct-partial.json", "replaced.json", "lock"
_NAME = re.compile(r"\.(.+)\.partial-[a-z0-9_]{8}")
_TRIES = 5


class Stage:
    """A hidden folder of a target.

    Attributes:
        folder: the hidden folder.
        new: what will be the target; the writer makes it, as a file or as a folder.
        old: the replaced folder, for the moment between two renames.
    """

    def __init__(self, folder: Path, target_name: str) -> None:
        self.folder = folder
        self.new = folder / "new" / target_name
        self.old = folder / "old" / target_name

    def mark(self) -> None:
        """Say whose folder this is."""
        _write_json(self.folder / _MARK, {"program": "deft-ct", "target": self.new.name})

    def list_replaced(self, files: Inventory) -> None:
        """Say which files in ``old`` may be removed; to be called before there are any."""
        _write_json(self.folder / _REPLACED, files)

    def replaced(self) -> Inventory:
        """The files in ``old`` that may be removed."""
        stored = json.loads((self.folder / _REPLACED).read_text(encoding="utf-8"))
        return {name: (size, changed) for name, (size, changed) in stored.items()}

    def discard(self) -> None:
        """Remove the folder with everything that was written to it, and nothing else.

        Files of ``old`` are removed only if they are listed and unchanged. If anything is left, a warning says where.
        """
        try:
            if self.new.parent.is_dir():
                shutil.rmtree(self.new.parent)
            if self.old.is_dir():
                _remove_listed(self.old, self.replaced())
            if self.old.parent.is_dir() and not any(self.old.parent.iterdir()):
                self.old.parent.rmdir()
            if not self.old.parent.is_dir():
                for name in (_REPLACED, _MARK, _LOCK):
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()
                return
            problem = "it holds files that this program did not write"
        except OSError as error:
            problem = error.strerror or str(error)
        warnings.warn(
            f"the temporary folder {self.folder} could not be removed ({problem}): look into it and delete it",
            UserWarning,
            stacklevel=3,
        )


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Stage]:
    """A new hidden folder beside ``target``, locked by this process and removed at the end."""
    for _ in range(_TRIES):  # a sweep may remove the folder before it is locked
        folder = Path(tempfile.mkdtemp(prefix=hidden_prefix(target), dir=target.parent))
        with try_lock(folder / _LOCK) as mine:
            if not mine:
                continue
            stage = Stage(folder, target.name)
            try:
                stage.mark()
                stage.new.parent.mkdir()
                yield stage
            finally:
                stage.discard()
        return
    raise FileNotFoundError(f"the temporary folder of {target} vanished again and again")


@contextlib.contextmanager
def abandoned(target: Path) -> Iterator[list[Stage]]:
    """The hidden folders that killed processes left of ``target``, locked by this process inside the block."""
    with contextlib.ExitStack() as locks:
        found = []
        for folder in sorted(target.parent.glob(glob.escape(hidden_prefix(target)) + "*")):
            if _is_ours(folder, target.name) and locks.enter_context(try_lock(folder / _LOCK)):
                found.append(Stage(folder, target.name))
        yield found


def abandoned_below(root: Path) -> list[Path]:
    """Targets below ``root`` of which hidden folders are left, live ones included; links are not followed."""
    found = set()
    for top, folders, _ in os.walk(root):
        hidden = [name for name in folders if _NAME.fullmatch(name)]
        folders[:] = [name for name in folders if name not in hidden]
        for name in hidden:
            try:
                found.add(Path(top) / _read_mark(Path(top) / name))
            except (OSError, ValueError, KeyError):  # killed before it was marked, or after its mark was removed
                found.add(Path(top) / name[1 : name.rindex(".partial-")])
    return sorted(found)


def inventory(folder: Path) -> Inventory:
    """All files and links below ``folder``."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            state = path.lstat()
            found[path.relative_to(folder).as_posix()] = (state.st_size, state.st_mtime_ns)
    return found


def _is_ours(folder: Path, target_name: str) -> bool:
    if not _NAME.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    try:
        return _read_mark(folder) == target_name
    except (OSError, ValueError, KeyError):
        # A process that was killed before it could mark its folder has put nothing else into it.
        return {path.name for path in folder.iterdir()} <= {_LOCK, _MARK}


def _read_mark(folder: Path) -> str:
    """The name of the target of a hidden folder."""
    content = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("program") != "deft-ct":
        raise ValueError(f"{folder} is not a temporary folder of deft-ct")
    return str(content["target"])


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
    sync_file(path)


def _remove_listed(folder: Path, listed: Inventory) -> None:
    now = inventory(folder)
    for name, state in listed.items():
        if now.get(name) == state:
            (folder / name).unlink()
    for root, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # not empty: it holds a file of somebody else
            Path(root).rmdir()
