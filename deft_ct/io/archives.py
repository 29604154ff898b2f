"""Tar archives, and archives inside of archives: unpacked to a temporary folder, under the limits of one archive."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from deft_ct.io.dicom_stream import PREFIX_END, is_dicom
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import LIMIT_VARIABLE, current_limits
from deft_ct.io.parsing import parsing
from deft_ct.io.zip_members import check_method, opened, visible_members
from deft_ct.runtime.printable import printable

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
DEEPEST = 3
"""Archives inside of archives are opened down to this level."""
_CHUNK = 2**20
_LONGEST_NAME = 100
_UNSAFE = '\\:*?"<>|'


def needs_unpacking(path: Path) -> bool:
    """Whether a file is a tar archive, or a zip archive that holds archives.

    Raises:
        ReadError: the zip archive is damaged.
    """
    if not path.is_file():
        return False
    if _is_tar(path.name):
        return True
    with path.open("rb") as stream:
        start = stream.read(PREFIX_END)
    if is_dicom(start) or not zipfile.is_zipfile(path):
        return False
    with opened(path) as archive:
        return any(_is_archive(info.filename) for info in visible_members(archive))


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with the files of an archive and of those inside of it, removed at the end.

    Of files that do not look like DICOM only the first bytes are written. Errors about a file of the folder leave as
    errors about the archive.

    Raises:
        ReadError: it is damaged, has too many members, inflates to too much, or holds archives too deeply.
    """
    with tempfile.TemporaryDirectory(prefix="deft-ct-") as temporary:
        folder = Path(temporary)
        try:
            with parsing(path, "an archive"):
                _Unpacking(path).unpack(path, folder, depth=1)
            yield folder
        except ReadError as error:
            where = Path(error.path)
            if not where.is_relative_to(folder):
                raise
            member = "" if where == folder else f"member {printable(where.relative_to(folder))}: "
            raise type(error)(path, member + error.problem.replace(str(folder), printable(path))) from error


class _Unpacking:
    """What was unpacked so far of one archive that the user named."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.written = self.members = 0

    def unpack(self, archive: Path, folder: Path, depth: int) -> None:
        if depth > DEEPEST:
            raise ReadError(self.source, f"it holds archives nested deeper than {DEEPEST} levels; unpack it yourself")
        folder.mkdir(exist_ok=True)
        for name, stream in _members(archive):
            self._count_member()
            target = self._target(folder, name)
            if _is_archive(name):
                inner = target.with_name(target.name + ".packed")
                self._write(stream, inner)
                with parsing(self.source, "an archive", member=name):
                    self.unpack(inner, target, depth + 1)
                inner.unlink()
            else:
                start = stream.read(PREFIX_END)
                wanted = is_dicom(start) or PurePosixPath(name).suffix.lower() in (".dcm", ".dicom", ".ima")
                self._write(stream if wanted else io.BytesIO(), target, start)

    def _count_member(self) -> None:
        self.members += 1
        most = current_limits().members
        if self.members > most:
            raise ReadError(self.source, f"it holds more than {most} members; unpack the study that you want")

    def _target(self, folder: Path, name: str) -> Path:
        parts = [_safe(part) for part in PurePosixPath(name).parts if part not in ("/", ".", "..")]
        target = folder.joinpath(*(parts or ["_"]))
        if target.exists():
            raise ReadError(
                self.source,
                f"it holds 2 members called {printable(name)}, so that nobody knows which one is meant; unpack "
                "and pack it again",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _write(self, stream: IO[bytes], target: Path, start: bytes = b"") -> None:
        limits = current_limits()
        with target.open("wb") as file:
            chunk = start or stream.read(_CHUNK)
            while chunk:
                self.written += len(chunk)
                if self.written > limits.inflated_bytes:
                    raise ReadError(
                        self.source,
                        f"it inflates to more than {limits.inflated_bytes / 2**30:.1f} GiB. If it is sound, unpack it, "
                        f"or set {LIMIT_VARIABLE}",
                    )
                stored = self.source.stat().st_size
                limits.check_expansion(self.source, self.written, stored, what="members")
                file.write(chunk)
                chunk = stream.read(_CHUNK)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The visible files of an archive, each with its open content."""
    if zipfile.is_zipfile(archive):
        with opened(archive) as packed:
            for info in visible_members(packed):
                check_method(info, archive)
                with packed.open(info) as stream:
                    yield info.filename, stream
        return
    with tarfile.open(archive, "r|*") as packed_tar:
        for member in packed_tar:
            hidden = any(part.startswith(".") and part not in (".", "..") for part in PurePosixPath(member.name).parts)
            if member.isreg() and not hidden:
                content = packed_tar.extractfile(member)
                if content is not None:
                    yield member.name, content


def _safe(part: str) -> str:
    clean = "".join(c if c.isprintable() and c not in _UNSAFE else "_" for c in part)
    return clean[-_LONGEST_NAME:].lstrip(".") or "_"


def _is_tar(name: str) -> bool:
    return name.lower().endswith(TAR_SUFFIXES)


def _is_archive(name: str) -> bool:
    return _is_tar(name) or name.lower().endswith(".zip")
