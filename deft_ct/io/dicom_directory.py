"""The files that a DICOMDIR references (PS3.3, F).

pydicom's FileSet follows the links between records without end where they form a circle, so it is not used on files
that are not trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileDataset

from deft_ct.io.errors import ReadError
from deft_ct.io.parsing import parsing
from deft_ct.runtime.printable import printable

NAME = "DICOMDIR"
_INACTIVE = 0


@dataclass(frozen=True)
class Reference:
    """One file that a DICOMDIR names.

    Attributes:
        name: its name there, for messages.
        path: the file; None if it is not there.
        series_uid: SeriesInstanceUID of the record above it, if there is one.
    """

    name: str
    path: Path | None
    series_uid: str | None


def is_directory(path: Path) -> bool:
    """Whether a path is a file called DICOMDIR, in any case. A folder of that name is a folder."""
    return path.name.upper() == NAME and path.is_file()


def references(path: Path, directory: FileDataset) -> list[Reference]:
    """The files that a DICOMDIR references, each once.

    Args:
        path: of the DICOMDIR.
        directory: its content.

    Raises:
        ReadError: it has no records, or names a file outside of its folder.
    """
    with parsing(path, "a DICOMDIR"):
        records = list(directory.get("DirectoryRecordSequence") or [])
        if not records:
            raise ReadError(path, "it references no files; name the folder of the DICOM files instead")
        series = _series_of_records(directory, records)
        found: dict[tuple[str, ...], Reference] = {}
        for n, record in enumerate(records):
            value: Any = record.get("ReferencedFileID")
            if not value or record.get("RecordInUseFlag") == _INACTIVE:
                continue
            parts = (value,) if isinstance(value, str) else tuple(str(part) for part in value)
            found[parts] = Reference("/".join(map(printable, parts)), _inside(path, parts), series.get(n))
        return list(found.values())


def _series_of_records(directory: Dataset, records: list[Dataset]) -> dict[int, str | None]:
    """Index of a record -> the series above it; records that no other one links to are left out."""
    index = {int(getattr(record, "seq_item_tell", -1)): n for n, record in enumerate(records)}
    start = directory.get("OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity", 0)
    waiting: list[tuple[int, str | None]] = [(int(start or 0), None)]
    found: dict[int, str | None] = {}
    while waiting:
        offset, series = waiting.pop()
        n = index.get(offset)
        if n is None or n in found:
            continue
        record = records[n]
        waiting.append((int(record.get("OffsetOfTheNextDirectoryRecord", 0) or 0), series))
        own = str(record.get("SeriesInstanceUID") or "") or series
        found[n] = own
        waiting.append((int(record.get("OffsetOfReferencedLowerLevelDirectoryEntity", 0) or 0), own))
    return found


def _inside(directory: Path, parts: tuple[str, ...]) -> Path | None:
    """The file of a File ID; names are matched in any case, because media are mounted with either."""
    folder = directory.parent
    path = folder
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part:
            raise ReadError(directory, f"it names the file {printable('/'.join(parts))}, which lies outside its folder")
        path = _entry(path, part)
    if not path.is_file():
        return None
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ReadError(directory, f"it names the file {printable('/'.join(parts))}, which lies outside its folder")
    return path


def _entry(folder: Path, name: str) -> Path:
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact
    return next((path for path in sorted(folder.iterdir()) if path.name.casefold() == name.casefold()), exact)
