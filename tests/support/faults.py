"""Disks that fail: the n-th call that writes below a folder ends with an error of the system."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

_CALLS = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "link", "fsync", "chmod", "write")


class Disk:
    """Counts the calls that write below ``root``, and fails one of them.

    Args:
        root: the folder.
        fail_at: number of the call that fails, from 1; 0 for none.
        number: the error.
    """

    def __init__(self, root: Path, fail_at: int = 0, number: int = 0) -> None:
        self.root, self.fail_at, self.number = str(root), fail_at, number
        self.calls: list[str] = []

    def count(self, what: str, path: Any, *, named: bool = True) -> None:
        """One more call; raises if it is the one that fails."""
        place = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if place and not Path(place).is_absolute():
            place = ""  # relative to an open folder: shutil.rmtree
        if place and not place.startswith(self.root):
            return
        self.calls.append(f"{what} {place}")
        if len(self.calls) == self.fail_at:
            raise OSError(self.number, os.strerror(self.number), *([place] if named and place else []))


class _File:
    """A file whose writes are counted; like those of the system, their errors name no file."""

    def __init__(self, file: Any, disk: Disk, path: Any) -> None:
        self._file, self._disk, self._path = file, disk, path

    def write(self, data: Any) -> Any:
        self._disk.count("write", self._path, named=False)
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextmanager
def failing(disk: Disk) -> Iterator[Disk]:
    """Let ``disk`` fail inside the block, in this process."""
    real_open = io.open

    def opened(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if isinstance(path, int) or not set(mode) & set("wax+"):
            return real_open(path, mode, *args, **options)
        disk.count("open", path)
        return _File(real_open(path, mode, *args, **options), disk, path)

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *args: Any, **options: Any) -> Any:
            reads = name == "open" and not (args and args[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if not reads:
                disk.count(name, first)
            return real(first, *args, **options)

        return call

    patches = [mock.patch.object(os, name, counted(name, getattr(os, name))) for name in _CALLS]
    patches += [mock.patch.object(builtins, "open", opened), mock.patch.object(io, "open", opened)]
    for patch in patches:
        patch.start()
    try:
        yield disk
    finally:
        for patch in reversed(patches):
            patch.stop()
