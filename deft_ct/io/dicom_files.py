"""Finding the CT images among the files of a folder or a zip archive."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pydicom.dataset import FileDataset
from pydicom.uid import CTImageStorage

from deft_ct.io.dicom_directory import NAME as DICOMDIR
from deft_ct.io.dicom_directory import is_directory, references
from deft_ct.io.dicom_frames import MULTI_FRAME_CLASSES, frame_headers, frame_of
from deft_ct.io.dicom_layouts import RAW_PROJECTION, is_raw_projection, raw_projections_error
from deft_ct.io.dicom_stream import PREFIX_END, is_dicom, peek_series_uid, read_stream
from deft_ct.io.errors import ReadError
from deft_ct.io.folders import visible_files
from deft_ct.io.limits import current_limits
from deft_ct.io.parsing import parsing
from deft_ct.io.zip_members import check_members, opened, read_member, read_start, visible_members
from deft_ct.runtime.printable import printable

_ZIP_START = b"PK\x03\x04"
NAMES_OF_DICOM = (".dcm", ".dicom", ".ima")


class DicomSeriesError(ReadError):
    """The DICOM input cannot be used as it is; the message says why and what to do."""


@dataclass(frozen=True)
class DicomFile:
    """One DICOM image on disk or inside an archive.

    Attributes:
        path: the file, or the archive.
        member: its entry in the archive, or None.
        header: everything but the pixel data; of one frame where the file holds several.
        frames: number of frames of the file.
    """

    path: Path
    member: zipfile.ZipInfo | None
    header: FileDataset
    frames: int = 1

    @property
    def frame(self) -> int | None:
        """Number of its frame, from 1; None for a file of one image."""
        return frame_of(self.header)

    @property
    def name(self) -> str:
        """File name for messages."""
        name = _name(self.path, self.member)
        return name if self.frame is None else f"{name} (frame {self.frame})"

    @property
    def stored(self) -> int:
        """Bytes that it takes on disk."""
        size = self.path.stat().st_size if self.member is None else self.member.compress_size
        return size // self.frames

    def read(self) -> FileDataset:
        """Read the whole file, pixel data included. The last file of several frames is kept: see :func:`forget`.

        Raises:
            ReadError: it is damaged, or too large for its frames.
        """
        read = _read_whole if self.frames == 1 else _read_kept
        dataset = read(self.path, self.member, self.frames)
        if dataset is None:
            raise self.refused("it has changed while it was read")
        return dataset

    def refused(self, problem: str) -> DicomSeriesError:
        """The error that names this file."""
        if self.member is None:
            return DicomSeriesError(self.path, problem if self.frame is None else f"frame {self.frame}: {problem}")
        return DicomSeriesError(self.path, f"member {self.name}: {problem}")


@dataclass(frozen=True)
class DamagedFile:
    """A DICOM file that cannot be read.

    Attributes:
        name: of the file or member, for messages.
        error: why.
        series_uid: the SeriesInstanceUID if that much could be read.
        has_prefix: whether it has the prefix of a DICOM file; else its name alone says that it should be one.
    """

    name: str
    error: ReadError
    series_uid: str | None = None
    has_prefix: bool = True


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        series: CT images by SeriesInstanceUID.
        others: number of DICOM files that are not CT images, by what they are.
        not_dicom: names of the files that are not DICOM.
        damaged: DICOM files that cannot be read and may be CT images.
        unread: folders that were not looked into, a sentence each.
    """

    series: dict[str, list[DicomFile]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    not_dicom: list[str] = field(default_factory=list)
    damaged: list[DamagedFile] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def find_series(source: Path) -> Found:
    """Read the header of every DICOM file of a folder (with its sub-folders), a zip archive, or of a single file.

    A DICOMDIR that is a file stands for the files that it references, and for no others beside it.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ReadError: the archive cannot be read.
        DicomSeriesError: there is nothing in it, no DICOM, or no CT image.
    """
    if not source.exists():
        raise FileNotFoundError(f"no such folder, zip archive or file: {printable(source)}")
    found = Found()
    with parsing(source, "a folder, zip archive or file"):
        count = _search(source, found)
    if count == 0:
        but = f", but {'; '.join(found.unread[:3])}" if found.unread else ""
        raise DicomSeriesError(source, f"it is empty{but}; name the folder or zip archive that holds the DICOM files")
    if not found.series:
        raise _nothing_found(source, found)
    return found


def _search(source: Path, found: Found) -> int:
    """Fill ``found``; returns the number of files."""
    if not source.is_dir() and not source.is_file():
        raise DicomSeriesError(source, "it is neither a file nor a folder; name the folder of the DICOM files")
    count = 0
    for path, member, content in _contents(source, found):
        count += 1
        name = _name(path, member)
        try:
            header = content() if content else _read_file(path, pixels=False)
            file = None if header is None else DicomFile(path, member, header)
            kind = None if file is None else _kind(file)
            slices = _slices(file) if file is not None and kind is None else []
        except ReadError as error:
            found.damaged.append(DamagedFile(name, error, _series_uid_of(path, member)))
            continue
        if file is None and Path(name).suffix.lower() in NAMES_OF_DICOM:
            part = "" if member is None else f"member {name}: "
            problem = f"{part}it is called like a DICOM file and has no DICOM prefix; is it complete? Copy it again"
            found.damaged.append(DamagedFile(name, DicomSeriesError(path, problem), has_prefix=False))
        elif file is None:
            found.not_dicom.append(name)
        elif kind is None:
            found.series.setdefault(_text(file.header, "SeriesInstanceUID"), []).extend(slices)
        else:
            found.others[kind] = found.others.get(kind, 0) + 1
    return count


def _nothing_found(source: Path, found: Found) -> ReadError:
    for damaged in found.damaged:
        if damaged.has_prefix:
            return DicomSeriesError(damaged.error.path, damaged.error.problem)
    if RAW_PROJECTION in found.others:
        return raw_projections_error(source, found.others[RAW_PROJECTION])
    if not found.others:
        names = [*(d.name for d in found.damaged), *found.not_dicom]
        return DicomSeriesError(
            source,
            f"it holds {len(names)} file(s), none of them DICOM ({', '.join(sorted(names)[:3])}); name a folder of "
            "DICOM CT images (a file without the DICM prefix counts as not DICOM)",
        )
    held = ", ".join(f"{n} x {kind}" for kind, n in sorted(found.others.items()))
    return DicomSeriesError(
        source, f"it holds no CT images, only {held}; name a folder with a series of modality CT (CT Image Storage)"
    )


_Content = Callable[[], FileDataset | None]


def _contents(source: Path, found: Found) -> Iterator[tuple[Path, zipfile.ZipInfo | None, _Content | None]]:
    if source.is_dir():
        most = current_limits().members
        for count, path in enumerate(visible_files(source, found.unread.append)):
            if count >= most:
                raise DicomSeriesError(source, f"it holds more than {most} files; name the folder of one study")
            if path.name.upper() != DICOMDIR:
                yield path, None, None
    elif is_directory(source):
        yield from _of_directory(source, found)
    elif _starts_as_dicom(source) or not _is_zip(source):
        yield source, None, None
    else:
        with opened(source) as archive:
            chosen = _dicom_members(archive, source, found)
            check_members(source, chosen)
            for info in chosen:
                yield source, info, partial(_read_of_archive, archive, info, source, pixels=False)
        if not chosen and found.not_dicom:
            raise _nothing_found(source, found)


def _of_directory(source: Path, found: Found) -> Iterator[tuple[Path, zipfile.ZipInfo | None, _Content | None]]:
    directory = _read_file(source, pixels=False)
    if directory is None:
        raise DicomSeriesError(source, "it is no DICOMDIR (no DICOM prefix); name the folder of the DICOM files")
    for reference in references(source, directory):
        if reference.path is None:
            problem = f"it references the file {reference.name}, which is not there; copy the whole medium again"
            error = DicomSeriesError(source, problem)
            found.damaged.append(DamagedFile(reference.name, error, reference.series_uid))
        else:
            yield reference.path, None, None


def _slices(file: DicomFile) -> list[DicomFile]:
    """The image itself, or its frames."""
    if file.header.get("SOPClassUID") not in MULTI_FRAME_CLASSES:
        return [file]
    try:
        headers = frame_headers(file.header)
    except ValueError as error:
        raise file.refused(str(error)) from error
    return [DicomFile(file.path, file.member, header, len(headers)) for header in headers]


def _dicom_members(archive: zipfile.ZipFile, source: Path, found: Found) -> list[zipfile.ZipInfo]:
    """The members that are DICOM, or have the name of it: the others are not inflated beyond their first bytes."""
    chosen = []
    for info in visible_members(archive):
        if Path(info.filename).name.upper() == DICOMDIR:
            continue
        try:
            wanted = is_dicom(read_start(archive, info, source, PREFIX_END))
        except ReadError:
            wanted = True  # reading it says again what is wrong, where it is noted
        if wanted or Path(info.filename).suffix.lower() in NAMES_OF_DICOM:
            chosen.append(info)
        else:
            found.not_dicom.append(printable(info.filename))
    return chosen


def _is_zip(path: Path) -> bool:
    """Whether a file is a zip archive; one without its end is refused, because its list of members is missing."""
    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as stream:
        if stream.read(len(_ZIP_START)) == _ZIP_START:
            raise DicomSeriesError(path, "it is a zip archive that is cut off or damaged; copy or download it again")
    return False


def _starts_as_dicom(path: Path) -> bool:
    with parsing(path, "a DICOM file"), path.open("rb") as stream:
        return is_dicom(stream.read(PREFIX_END))


def _read_whole(path: Path, member: zipfile.ZipInfo | None, frames: int) -> FileDataset | None:
    if member is None:
        return _read_file(path, pixels=True, frames=frames)
    with opened(path) as archive:
        return _read_of_archive(archive, member, path, pixels=True)


_read_kept = lru_cache(maxsize=1)(_read_whole)


def forget() -> None:
    """Free the memory of the last file of several frames."""
    _read_kept.cache_clear()


def _read_file(path: Path, *, pixels: bool, frames: int = 1) -> FileDataset | None:
    """None for a file that is not DICOM."""
    with parsing(path, "a DICOM file"), path.open("rb") as stream:
        if not is_dicom(stream.read(PREFIX_END)):
            return None
        return read_stream(stream, path.stat().st_size, path, pixels=pixels, frames=frames)


def _read_of_archive(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, *, pixels: bool
) -> FileDataset | None:
    """None for a member that is not DICOM."""
    content = read_member(archive, info, path)
    if not is_dicom(content):
        return None
    return read_stream(io.BytesIO(content), len(content), path, member=info.filename, pixels=pixels)


def _series_uid_of(path: Path, member: zipfile.ZipInfo | None) -> str | None:
    """What a damaged file says of its series; None if that cannot be read."""
    if member is not None:
        return None
    with suppress(OSError), path.open("rb") as stream:
        return peek_series_uid(stream, path.stat().st_size, path)
    return None


def _kind(file: DicomFile) -> str | None:
    """None for a CT image; else what the file is, in words."""
    header = file.header
    sop_class = _text(header, "SOPClassUID")
    if not sop_class:
        raise file.refused("it does not say what it is (no SOPClassUID): it is cut off or damaged; copy it again")
    if is_raw_projection(header):
        return RAW_PROJECTION
    modality = printable(_text(header, "Modality") or "unknown", 16)
    if sop_class == CTImageStorage or sop_class in MULTI_FRAME_CLASSES:
        if modality == "unknown":
            raise file.refused("it is a CT image without a Modality: it is cut off or damaged; copy it again")
        # Radiotherapy and PET workstations store other modalities in this class now and then.
        return None if modality == "CT" else f"{modality} image"
    if "Rows" not in header:
        return f"{modality} object without an image"
    return f"{modality} image ({printable(getattr(header.SOPClassUID, 'name', sop_class), 64)})"


def _text(header: FileDataset, name: str) -> str:
    value: Any = header.get(name)
    return "" if value is None else str(value)


def _name(path: Path, member: zipfile.ZipInfo | None) -> str:
    return printable(path.name if member is None else member.filename)
