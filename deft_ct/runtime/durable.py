"""What survives a crash, and errors of writing that name the file.

A rename alone survives a killed process. It does not survive a power cut: the name can reach the disk before the bytes.
Files and the folders that hold their names are therefore flushed to the disk before and after a rename.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FAILED = frozenset({errno.EIO, errno.ENXIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG})
_WITHOUT_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
"""Answers of file systems that cannot flush a folder, for example some network shares."""


class WriteError(OSError):
    """A file could not be written. The message is one line that names it and says what to do.

    Args:
        number: error number of the system, see :mod:`errno`.
        path: the file or folder that the user asked for, not a temporary one.
    """

    def __init__(self, number: int, path: str | Path) -> None:
        super().__init__(number, os.strerror(number), str(path))

    def __str__(self) -> str:
        if self.errno in _FULL:
            advice = "free some space, or choose another disk"
        elif self.errno in _FORBIDDEN:
            advice = "choose a folder that you may write to"
        else:
            advice = "check the disk, or choose another one"
        return f"cannot write {self.filename} ({self.strerror}): {advice}"


def hidden_prefix(target: Path) -> str:
    """How the names of the hidden folders beside a target begin, in which it is written."""
    return f".{short_name(target.name)}.partial-"


def short_name(name: str) -> str:
    """The name of a file, or a beginning of it and a hash: hidden names are longer, and systems allow 255 bytes.

    A shortened name is its own short name. So a hidden folder without a mark is found by what its name says.
    """
    return name if len(name) <= 41 else f"{name[:32]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turn errors of writing inside the block into :class:`WriteError` with the path that the user knows.

    Args:
        target: the file or folder that appears at the end. A path in its hidden folder, ``HIDDEN/new/NAME/...``, is
            reported as ``target/...``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL | _FORBIDDEN | _FAILED:
            raise
        place = target if error.filename is None else _known_place(Path(os.fsdecode(error.filename)), target)
        if place is None:
            raise
        raise WriteError(error.errno, place) from error


def _known_place(path: Path, target: Path) -> Path | None:
    """Where the user will look for a file; None if it has nothing to do with ``target``."""
    if path == target.parent or path.is_relative_to(target):
        return path if path.is_relative_to(target) else target
    if not path.is_relative_to(target.parent):
        return None
    first, *rest = path.relative_to(target.parent).parts
    return target.joinpath(*rest[2:]) if first.startswith(hidden_prefix(target)) else None


def sync_file(path: Path) -> None:
    """Flush a file to the disk."""
    _sync(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk. Does nothing where the system cannot do it (Windows, some shares)."""
    if os.name == "nt":
        return
    try:
        _sync(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _WITHOUT_FLUSH:
            raise


def sync_tree(folder: Path) -> None:
    """Flush all files and folders below ``folder``, and ``folder`` itself."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_file(Path(root) / name)
        sync_folder(Path(root))


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(handle)
