"""Files and folders that appear whole or not at all.

Everything is written in a hidden folder beside the target, flushed to the disk, and renamed at the end. A reader never
sees half a result under the final name, and an interrupted run never leaves one. Two processes never write to one
folder at a time, and a file that this program did not write is never removed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deft_ct.runtime.durable import sync_file, sync_folder, sync_tree, write_errors
from deft_ct.runtime.locks import lock_beside, lock_inside
from deft_ct.runtime.staging import Inventory, Stage, abandoned, abandoned_below, inventory, staged

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
        raise _not_empty(target)
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


def _not_empty(target: Path) -> FileExistsError:
    return FileExistsError(
        f"the output folder {target} is not empty; name another one, or replace it with --overwrite (overwrite=True)"
    )


# A file of this kind is the whole input; any other stands for its folder.
_WHOLE_INPUTS = (
    ".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".nii", ".mha", ".nrrd",
    ".mat", ".npy", ".npz", ".h5", ".hdf5", ".hdf", ".nxs", ".tif", ".tiff",
)  # fmt: skip


def _refuse_overlap(target: Path, source: Path) -> None:
    out, inside = target.resolve(), source.resolve()
    if source.is_file():
        inside = inside if inside.suffix.lower() in _WHOLE_INPUTS else inside.parent
    if out == inside or inside in out.parents or out in inside.parents:
        raise ValueError(
            f"the output folder {target} overlaps with the input {source}; results are never mixed "
            "with the originals: name a folder outside"
        )


@contextlib.contextmanager
def reserve_folder(folder: str | Path, *, overwrite: bool = False, source: str | Path | None = None) -> Iterator[Path]:
    """Hold a folder that will be written as a whole at the end of the block, by :func:`atomic_folder`.

    A second process is refused at once, not after its work. What a killed process has left beside the folder is
    removed, and a result that it was replacing is put back.

    Args:
        folder: the target; see :func:`check_writable` for the arguments.
        overwrite: whether it may hold files already.
        source: where the input lies.

    Yields:
        ``folder`` as an absolute path.

    Raises:
        InUseError: another process writes there.
        FileExistsError, PermissionError, ValueError: see :func:`check_writable`.
    """
    named = check_writable(folder, overwrite=overwrite, source=source)
    target = _behind_links(named)
    with lock_beside(target):
        _clean_up(target)
        check_writable(folder, overwrite=overwrite, source=source)  # the state of the folder before the lock is history
        yield named


@contextlib.contextmanager
def occupy_folder(folder: str | Path) -> Iterator[Path]:
    """Hold a folder that is written in place, file by file: a training, a comparison, a study.

    The folder is made if it is missing, and removed at the end if it is still empty. What killed processes have left in
    it is removed.

    Yields:
        ``folder`` as an absolute path.

    Raises:
        InUseError: another process writes there.
        FileExistsError, PermissionError: see :func:`check_writable`.
    """
    named = check_writable(folder, overwrite=True)
    target = _behind_links(named)
    with lock_inside(target):
        for left in abandoned_below(target):
            _clean_up(left)
        yield named


@contextlib.contextmanager
def atomic_folder(
    folder: str | Path, *, overwrite: bool = False, is_own: OwnFile | None = None, keeps: OwnFile | None = None
) -> Iterator[Path]:
    """Write a folder that appears, complete, when the block ends without an exception.

    A target that is a symbolic link is written through: the link stays, and the folder that it names is replaced. No
    file is ever removed that ``is_own`` does not vouch for. If such a file appears while the block runs, the target
    stays as it is and the new folder is kept under another name.

    Args:
        folder: the target.
        overwrite: replace a folder that is not empty; the old one stays until the new one is complete.
        is_own: says whether a file of an existing folder was written by this program and may be removed. Required with
            ``overwrite``.
        keeps: says whether a file of an existing folder goes along into the new one, for example a file that the
            documentation tells users to put there.

    Yields:
        The temporary folder to write to, on the same disk.

    Raises:
        InUseError: another process writes there.
        FileExistsError: the target holds files and may not be replaced.
        WriteError: a file cannot be written, for example because the disk is full.
        ValueError: ``overwrite`` without ``is_own``.
    """
    if overwrite and is_own is None:
        raise ValueError("overwrite needs is_own, a check of the files that may be replaced")
    target = _behind_links(check_writable(folder, overwrite=overwrite))
    rule = _Rule(target, is_own if overwrite else None, keeps)
    with write_errors(target), lock_beside(target):
        _clean_up(target)
        rule.check(target)
        with staged(target) as stage:
            stage.new.mkdir()
            yield stage.new
            _replace_folder(stage, target, rule)


@dataclass(frozen=True)
class _Rule:
    """Which files of an existing target may go."""

    target: Path
    is_own: OwnFile | None
    keeps: OwnFile | None

    def check(self, folder: Path) -> Inventory:
        """The files of the target, which may lie at ``folder``.

        Raises:
            FileExistsError: one of them may not be removed.
        """
        found = inventory(folder) if folder.is_dir() else {}
        if found and self.is_own is None:
            raise _not_empty(self.target)
        for name in found:
            if not self.goes_along(folder / name) and not self._vouched(folder / name):
                raise FileExistsError(
                    f"{self.target} is not overwritten: it holds {name}, which this program did not write"
                )
        return found

    def goes_along(self, path: Path) -> bool:
        return self.keeps is not None and self.keeps(path)

    def _vouched(self, path: Path) -> bool:
        return self.is_own is not None and not path.is_symlink() and self.is_own(path)


def _replace_folder(stage: Stage, target: Path, rule: _Rule) -> None:
    """Put the finished ``stage.new`` at ``target``.

    Raises:
        FileExistsError: the target has changed in a way that forbids it. The new folder is kept beside it.
    """
    for left in abandoned_below(stage.new):  # files in it are written in hidden folders, too
        _clean_up(left)
    sync_tree(stage.new)
    try:
        _swap(stage, target, rule)
    except FileExistsError as error:
        kept = _keep_beside(stage.new, target)
        raise FileExistsError(f"{error}; the new result is in {kept}") from error
    sync_folder(target.parent)


def _swap(stage: Stage, target: Path, rule: _Rule) -> None:
    before = rule.check(target)
    if target.is_dir():
        shutil.copymode(target, stage.new)
    if not before:
        _rename_to_free(stage.new, target)
        return
    for name in before:
        if rule.goes_along(target / name) and not (stage.new / name).exists():
            (stage.new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(target / name, stage.new / name)
    sync_tree(stage.new)
    stage.list_replaced(before)
    stage.old.parent.mkdir()
    sync_folder(stage.folder)
    target.rename(stage.old)
    try:
        if inventory(stage.old) != before:
            raise FileExistsError(f"{target} is not overwritten: another program has changed it at this moment")
        _rename_to_free(stage.new, target)
    except BaseException:
        try:
            _rename_to_free(stage.old, target)
        except FileExistsError as error:
            raise FileExistsError(f"{error}; its earlier content is in {_keep_beside(stage.old, target)}") from error
        raise


def _rename_to_free(folder: Path, target: Path) -> None:
    """Rename a folder; an empty folder at ``target`` is replaced, and anything else is not."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(f"{target} is not overwritten: it has appeared during this run") from error
        raise


def _keep_beside(folder: Path, target: Path) -> Path:
    for number in itertools.count(2):
        free = target.with_name(f"{target.name}-{number}")
        if not free.exists() and not free.is_symlink():
            with contextlib.suppress(FileExistsError):
                _rename_to_free(folder, free)
                sync_folder(free.parent)
                return free
    raise AssertionError("unreachable")


def _clean_up(target: Path) -> None:
    """Remove what killed processes have left of ``target``; an old result between two renames is put back."""
    with write_errors(target), abandoned(target) as stages:
        for stage in stages:
            if stage.old.is_dir() and not target.exists():
                _rename_to_free(stage.old, target)
                sync_folder(target.parent)
            elif stage.old.is_dir() and stage.new.is_dir():  # the folder at the target is of somebody else
                _keep_beside(stage.old, target)
            stage.discard()


def _behind_links(path: Path) -> Path:
    """The place that a path leads to.

    Raises:
        FileNotFoundError: it is a link into a folder that does not exist: the disk may not be mounted.
    """
    try:
        real = path.resolve()
    except RuntimeError as error:  # a loop of links
        raise FileNotFoundError(f"{path} is a symbolic link that leads nowhere; name another output") from error
    if path.is_symlink() and not real.parent.is_dir():
        raise FileNotFoundError(f"{path} is a symbolic link to {real}, but there is no {real.parent}: is it mounted?")
    return real


@contextlib.contextmanager
def atomic_file(path: str | Path, *, previous: str | Path | None = None) -> Iterator[Path]:
    """Write a file that appears, complete, when the block ends without an exception; an old one is replaced.

    A ``path`` that is a symbolic link is written through. What killed processes have left of the same file is removed.

    Args:
        path: the target.
        previous: keep the replaced file under this name, in the same folder. If the process is killed at this moment,
            only ``previous`` exists.

    Yields:
        A temporary path on the same disk, with the same name (some writers choose a format by its suffixes).

    Raises:
        IsADirectoryError: ``path`` is a folder.
        PermissionError: nothing can be written there.
        WriteError: the file cannot be written, for example because the disk is full.
    """
    named = Path(path).expanduser().absolute()
    if named.is_dir():
        raise IsADirectoryError(f"{named} is a folder; name a file")
    check_writable(named.parent, overwrite=True)
    target = _behind_links(named)
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(target)
        with staged(target) as stage:
            yield stage.new
            sync_file(stage.new)
            if previous is not None and target.exists():
                target.replace(previous)
            stage.new.replace(target)
            sync_folder(target.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8 that appears complete; see :func:`atomic_file`. Missing folders are made."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
