"""One process at a time for every output folder.

The locks are those of the operating system (``flock``, through the library filelock). They end with the process, also
when it is killed, so a lock never has to be broken by hand.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from deft_ct.runtime.durable import WriteError, short_name

INSIDE = ".deft-ct.lock"
"""Name of the lock in a folder that is written in place."""

_guard = threading.Lock()
_held: dict[Path, tuple[int, int]] = {}
"""Lock file -> (thread, how often it holds the lock). A thread may take a lock that it has."""


class InUseError(OSError):
    """Another process, or another thread of this one, writes to the same place."""


@contextlib.contextmanager
def lock_beside(target: Path) -> Iterator[None]:
    """Hold a folder that will be replaced as a whole; the lock is a hidden file beside it. Missing parents are made.

    Raises:
        InUseError: another process holds it; the message says which.
    """
    with _parents(target.parent, target), _lock(target.parent / f".{short_name(target.name)}.lock", target):
        yield


@contextlib.contextmanager
def lock_inside(folder: Path) -> Iterator[None]:
    """Hold a folder that is written in place; the lock is a hidden file in it. The folder is made if it is missing.

    Raises:
        InUseError: another process holds it; the message says which.
    """
    with _parents(folder, folder), _lock(folder / INSIDE, folder):
        yield


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Take the lock file ``path`` if nobody holds it; yields whether it worked. The file stays."""
    lock = FileLock(path, timeout=0)
    try:
        if not path.parent.is_dir():  # filelock would make it
            raise FileNotFoundError(path)
        lock.acquire()
    except (Timeout, FileNotFoundError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def _lock(path: Path, place: Path) -> Iterator[None]:
    path = path.parent.resolve() / path.name
    with _guard:
        owner, count = _held.get(path, (threading.get_ident(), 0))
        if owner != threading.get_ident():
            raise InUseError(f"{place} is in use by another thread of this process; choose another folder")
        _held[path] = (owner, count + 1)
    lock = FileLock(path, timeout=0)
    try:
        if not count:
            try:
                lock.acquire()
            except Timeout as error:
                raise InUseError(
                    f"{place} is in use by {_holder(path)}; wait until it has finished, or choose another folder"
                ) from error
            except OSError as error:
                raise WriteError(error.errno or errno.EIO, place) from error
            _sign(path)
        yield
    finally:
        with _guard:
            if count:
                _held[path] = (owner, count)
            else:
                del _held[path]
        if lock.is_locked:
            # Removed while it is held: whoever opened it before finds that it has no name and starts over.
            try:
                if os.name != "nt":
                    path.unlink(missing_ok=True)
            except OSError as error:
                warnings.warn(f"could not remove the lock file {path} ({error.strerror})", UserWarning, stacklevel=4)
            finally:
                lock.release()


def _sign(path: Path) -> None:
    """Say in the lock file who holds it. Only for the message to others: the lock holds without it."""
    who = {
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(who), encoding="utf-8")


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return f"process {who['process']} on {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextlib.contextmanager
def _parents(folder: Path, place: Path) -> Iterator[None]:
    """Make a folder and its parents. Those that are still empty at the end are removed again."""
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise WriteError(error.errno or errno.EIO, place) from error
    try:
        yield
    finally:
        for parent in made:
            try:
                parent.rmdir()
            except OSError:  # not empty: it is used
                break
