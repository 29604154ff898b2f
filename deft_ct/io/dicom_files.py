"""Finding the CT images among the files of a folder or a zip archive."""

from __future__ import annotations

import io
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

MULTI_FRAME_CLASSES = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)


class DicomSeriesError(ValueError):
    """The DICOM input cannot be used as it is; the message says why and what to do."""


@dataclass(frozen=True)
class DicomFile:
    """One DICOM file on disk or inside an archive.

    Attributes:
        path: the file, or the archive.
        member: name inside the archive, or None.
        header: everything but the pixel data.
    """

    path: Path
    member: str | None
    header: FileDataset

    @property
    def name(self) -> str:
        """File name for messages."""
        return self.member or self.path.name

    def read(self) -> FileDataset:
        """Read the whole file, pixel data included."""
        with quiet_pydicom():
            if self.member is None:
                return pydicom.dcmread(self.path)
            with zipfile.ZipFile(self.path) as archive:
                return pydicom.dcmread(io.BytesIO(archive.read(self.member)))


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        series: CT images by SeriesInstanceUID.
        others: number of DICOM files that are not CT images, by what they are.
        not_dicom: names of the files that are not DICOM.
    """

    series: dict[str, list[DicomFile]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    not_dicom: list[str] = field(default_factory=list)


def find_series(source: Path) -> Found:
    """Read the header of every DICOM file of a folder (with its sub-folders), a zip archive, or of a single file.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        DicomSeriesError: it is empty, holds no DICOM, or no CT image.
    """
    if not source.exists():
        raise FileNotFoundError(f"no such folder, zip archive or file: {source}")
    if source.name.upper() == "DICOMDIR":
        source = source.parent
    found = Found()
    count = 0
    for path, member, content in _contents(source):
        count += 1
        header = _header(path if content is None else io.BytesIO(content))
        if header is None:
            found.not_dicom.append(member or path.name)
            continue
        kind = _kind(header)
        if kind is None:
            uid = str(header.get("SeriesInstanceUID", ""))
            found.series.setdefault(uid, []).append(DicomFile(path, member, header))
        else:
            found.others[kind] = found.others.get(kind, 0) + 1
    if count == 0:
        raise DicomSeriesError(f"{source} is empty; name the folder or zip archive that holds the DICOM files")
    if not found.series:
        raise DicomSeriesError(_nothing_found(source, found))
    return found


def _nothing_found(source: Path, found: Found) -> str:
    if not found.others:
        examples = ", ".join(found.not_dicom[:3])
        return (
            f"{source} holds {len(found.not_dicom)} file(s), none of them DICOM ({examples}); name a folder of DICOM "
            "CT images (a file without the DICM prefix counts as not DICOM)"
        )
    held = ", ".join(f"{n} x {kind}" for kind, n in sorted(found.others.items()))
    return f"{source} holds no CT images, only {held}; name a folder with a series of modality CT (CT Image Storage)"


def _contents(source: Path) -> Iterator[tuple[Path, str | None, bytes | None]]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            # Hidden folders are no data: what a killed run left behind lies in one, for example.
            hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
            if path.is_file() and not hidden and path.name.upper() != "DICOMDIR":
                yield path, None, None
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for info in sorted(archive.infolist(), key=lambda entry: entry.filename):
                if not info.is_dir() and Path(info.filename).name.upper() != "DICOMDIR":
                    yield source, info.filename, archive.read(info)
    else:
        yield source, None, None


def _header(file: Path | io.BytesIO) -> FileDataset | None:
    try:
        with quiet_pydicom():
            header = pydicom.dcmread(file, stop_before_pixels=True)
            # Values are parsed on first use: do it here, where the file at hand is known.
            header.decode()
    except (InvalidDicomError, EOFError):
        return None
    return header


def _kind(header: FileDataset) -> str | None:
    """None for a CT image; else what the file is, in words."""
    sop_class = header.get("SOPClassUID", "")
    modality = str(header.get("Modality", "") or "unknown")
    if sop_class == CTImageStorage or sop_class in MULTI_FRAME_CLASSES:
        # Radiotherapy and PET workstations store other modalities in this class now and then.
        return None if modality == "CT" else f"{modality} image"
    if "Rows" not in header:
        return f"{modality} object without an image"
    return f"{modality} image ({getattr(sop_class, 'name', sop_class) or 'no SOP class'})"


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence warnings about single values that break a rule of the standard: real headers are full of them."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")
            yield
    finally:
        logger.setLevel(level)
