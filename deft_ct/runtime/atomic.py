"""Files and folders that appear whole or not at all.

Everything is written under a hidden temporary name in the target's parent folder and renamed at the end. A reader never
sees half a result under the final name, and an interrupted run never leaves one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

OwnFile = Callable[[Path], bool]


def check_writable(folder: str | Path, *, overwrite: bool = False, source: str | Path | None = None) -> Path:
    """Check that ``folder`` can be written, before any long work.

    Args:
        folder: the target; need not exist.
        overwrite: whether it may hold files already.
        source: where the input lies; the target must not be this folder, inside it or around it.

    Returns:
        ``folder`` as an absolute path.

    Raises:
        FileExistsError: the target is a file, or holds files and ``overwrite`` is false.
        PermissionError: nothing can be written there.
        ValueError: the target and the input overlap.
    """
    target = Path(folder).expanduser().absolute()
    if source is not None:
        _refuse_overlap(target, Path(source).expanduser().absolute())
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"the output {target} is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise FileExistsError(f"the output folder {target} is not empty; name another one or allow overwriting")
    ancestor = target
    while not ancestor.exists():
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise FileExistsError(f"cannot create {target}: {ancestor} is a file; name another output folder")
    try:
        with tempfile.TemporaryFile(dir=ancestor):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write to {ancestor} ({error.strerror}); name another output folder") from error
    return target


def _refuse_overlap(target: Path, source: Path) -> None:
    out, inside = target.resolve(), source.resolve()
    if source.is_file():
        inside = inside.parent if inside.suffix.lower() != ".zip" else inside
    if out == inside or inside in out.parents or out in inside.parents:
        raise ValueError(
            f"the output folder {target} overlaps with the input {source}; results are never mixed "
            "with the originals: name a folder outside"
        )


@contextlib.contextmanager
def atomic_folder(folder: str | Path, *, overwrite: bool = False, is_own: OwnFile | None = None) -> Iterator[Path]:
    """Write a folder that appears, complete, when the block ends without an exception.

    Args:
        folder: the target.
        overwrite: replace a folder that is not empty; the old one stays until the new one is complete.
        is_own: says whether a file of an existing folder may be replaced; a folder with any other file is refused, so
            that a mistyped target costs nothing. Required with ``overwrite``.

    Yields:
        The temporary folder to write to, in the same parent folder.

    Raises:
        FileExistsError: the target holds files and may not be replaced.
        ValueError: ``overwrite`` without ``is_own``.
    """
    if overwrite and is_own is None:
        raise ValueError("overwrite needs is_own, a check of the files that may be replaced")
    target = check_writable(folder, overwrite=overwrite)
    if overwrite and is_own is not None and target.is_dir():
        foreign = next((p for p in sorted(target.rglob("*")) if not p.is_dir() and not is_own(p)), None)
        if foreign is not None:
            raise FileExistsError(
                f"{target} is not overwritten: it holds {foreign.name}, which this program did not write"
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        _use_default_mode(temporary, 0o777)
        yield temporary
        _replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    backup = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    target.rename(backup / target.name)
    try:
        new.rename(target)
    except BaseException:
        (backup / target.name).rename(target)
        raise
    finally:
        shutil.rmtree(backup, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Write a file that appears, complete, when the block ends without an exception; an old one is replaced.

    Yields:
        A temporary path in the same folder, with the same suffixes (some writers choose a format by them).

    Raises:
        IsADirectoryError: ``path`` is a folder.
        PermissionError: nothing can be written there.
    """
    target = Path(path).expanduser().absolute()
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name a file")
    check_writable(target.parent, overwrite=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix=f"-{target.name}", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        _use_default_mode(temporary, 0o666)
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8 that appears complete; see :func:`atomic_file`. Missing folders are made."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _use_default_mode(path: Path, mode: int) -> None:
    """Temporary files are private; results get the permissions that the user's umask gives any new file."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)
