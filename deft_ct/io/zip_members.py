"""Zip archives that are not trusted: what may be read of them, decided before anything is inflated."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from deft_ct.io.errors import ReadError
from deft_ct.io.limits import LIMIT_VARIABLE, current_limits
from deft_ct.io.parsing import parsing
from deft_ct.runtime.printable import printable

ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the zipfile module inflates the others without any limit


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive, its errors as :class:`ReadError`.

    Raises:
        ReadError: it is damaged, or holds more members than ``Limits.members``.
    """
    with parsing(path, "a zip archive"), zipfile.ZipFile(path) as archive:
        most = current_limits().members
        if len(archive.infolist()) > most:
            raise ReadError(path, f"it holds {len(archive.infolist())} members; at most {most} are read")
        yield archive


def visible_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive in the order of their names; hidden ones and those that macOS adds are left out."""
    return sorted(
        (info for info in archive.infolist() if info.filename and not info.is_dir() and not _is_hidden(info.filename)),
        key=lambda info: (info.filename, info.header_offset),
    )


def read_start(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, count: int) -> bytes:
    """The first ``count`` bytes of a member; only a small part of it is inflated.

    Raises:
        ReadError: the member is damaged, encrypted, or compressed in another way than DICOM archives are.
    """
    check_method(info, path)
    with parsing(path, "a member of a zip archive", member=info.filename), archive.open(info) as file:
        return file.read(count)


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    """The whole of a member, its checksum verified.

    Raises:
        ReadError: the member is damaged, encrypted, or larger than ``Limits.modest_bytes``.
    """
    check_method(info, path)
    most = current_limits().modest_bytes
    if info.file_size > most:
        raise ReadError(
            path,
            f"member {printable(info.filename)} declares {info.file_size / 2**20:,.0f} MiB; at most "
            f"{most / 2**20:,.0f} MiB are read of one DICOM image. If it is sound, set {LIMIT_VARIABLE}",
        )
    # What a member declares is also the most that zipfile hands out of it.
    with parsing(path, "a member of a zip archive", member=info.filename):
        return archive.read(info)


def check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Check the members that will be read, together and before any of them is.

    Raises:
        ReadError: two have the same name, or they inflate to more than ``Limits.inflated_bytes`` or than any sound
            archive does.
    """
    for name, count in Counter(info.filename for info in members).most_common(1):
        if count > 1:
            raise ReadError(
                path,
                f"it holds {count} members called {printable(name)}, so that nobody knows which one is meant; unpack "
                "and pack it again",
            )
    limits = current_limits()
    declared, stored = sum(info.file_size for info in members), sum(info.compress_size for info in members)
    if declared > limits.inflated_bytes:
        raise ReadError(
            path,
            f"its DICOM members inflate to {declared / 2**30:.1f} GiB; at most {limits.inflated_bytes / 2**30:.1f} GiB "
            f"are read. If the archive is sound, unpack it, or set {LIMIT_VARIABLE}",
        )
    limits.check_declared(path, declared, stored, what="DICOM members")


def check_method(info: zipfile.ZipInfo, path: Path) -> None:
    """Check that a member is neither encrypted nor compressed in a way that inflates without any limit.

    Raises:
        ReadError: it is.
    """
    name = printable(info.filename)
    if info.flag_bits & ENCRYPTED:
        raise ReadError(path, f"member {name} is encrypted; unpack the archive with its password and name the folder")
    if info.compress_type not in _METHODS:
        raise ReadError(
            path,
            f"member {name} is compressed with method {info.compress_type}; only stored and deflated members are read: "
            "unpack the archive and name the folder",
        )


def _is_hidden(name: str) -> bool:
    parts = [part for part in PurePosixPath(name).parts if part not in (".", "..")]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
