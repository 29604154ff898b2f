"""One DICOM file from bytes that are not trusted: bounded in memory, and every error with the file's name."""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import data_element_generator
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian

from deft_ct.io.errors import ReadError
from deft_ct.io.limits import LIMIT_VARIABLE, current_limits
from deft_ct.io.parsing import parsing
from deft_ct.runtime.printable import printable

PREFIX_END = 132
MOST_NESTED = 32
"""Deepest nesting of sequences; real CT headers stay below ten, and a copy of a deeper one would not end well."""
_HEADER_SHARE = 16
"""The header, which is everything but the pixel data, may take this fraction of ``Limits.modest_bytes``: 16 MiB."""
_CHUNK = 2**16


def is_dicom(start: bytes) -> bool:
    """Whether a file that starts with these 132 bytes has the prefix of a DICOM file (PS3.10)."""
    return start[PREFIX_END - 4 : PREFIX_END] == b"DICM"


def read_stream(
    stream: BinaryIO, size: int, path: Path, *, member: str | None = None, pixels: bool, frames: int = 1
) -> FileDataset:
    """Read a DICOM file.

    Every value is parsed, so that nothing fails later. Memory is bounded by ``Limits.modest_bytes`` for a file, and by
    a part of it for a header.

    Args:
        stream: the file, at its beginning.
        size: its length in bytes.
        path: the file or archive, for messages.
        member: name inside the archive.
        pixels: whether to read the pixel data; without it reading stops there.
        frames: number of images that it is known to hold; each may be as large as one file of one image.

    Raises:
        ReadError: the file is cut off, damaged, too large, or nested too deeply.
    """
    limits = current_limits()
    most = min(limits.modest_bytes * frames, limits.array_bytes) if pixels else limits.modest_bytes // _HEADER_SHARE
    if pixels and size > most:
        raise ReadError(
            path,
            f"it takes {size / 2**20:,.0f} MiB; at most {most / 2**20:,.0f} MiB are read of one CT image. If it is "
            f"sound, set {LIMIT_VARIABLE}",
        )
    with parsing(path, "a DICOM file", member=member), quiet_pydicom():
        deflated = _check_deflated(stream, size, path)
        stream.seek(0)
        bounded = _Bounded(stream, size, most, path)
        dataset = pydicom.dcmread(cast(BinaryIO, bounded), stop_before_pixels=not pixels)
        # Values are parsed on first use: do it here, where the file at hand is known.
        dataset.decode()
        _check_nesting(dataset, path)
        # Reading stops at the pixel data: what ends without it is cut off, perhaps in the middle of a value.
        ended = not pixels and not deflated and (bounded.ended or stream.tell() >= size)
        if ended and dataset.file_meta.get("MediaStorageSOPClassUID") == CTImageStorage:
            part = "" if member is None else f"member {printable(member)}: "
            problem = "it has no pixel data: the file is cut off; copy or download it again"
            raise ReadError(path, f"{part}{problem}")
    dataset.filename = str(path)  # for later messages; it is not written
    dataset.buffer = None  # the stream is about to be closed, and a copy of the header must not look for it
    return dataset


def peek_series_uid(stream: BinaryIO, size: int, path: Path) -> str | None:
    """The SeriesInstanceUID of a file that may be damaged elsewhere; None if it cannot be read."""
    most = current_limits().modest_bytes // _HEADER_SHARE
    with suppress(ReadError), parsing(path, "a DICOM file"), quiet_pydicom():
        _check_deflated(stream, size, path)
        stream.seek(0)
        bounded = _Bounded(stream, size, most, path)
        found = pydicom.dcmread(cast(BinaryIO, bounded), stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        # The UID itself may be cut off: then it would name another series.
        return None if bounded.ended else str(found.get("SeriesInstanceUID") or "") or None
    return None


class _Bounded(io.RawIOBase):
    """A stream that never reserves more memory than the file has bytes, and refuses to hand out more than ``most``.

    A damaged length asks for up to 4 GiB, and Python's files reserve what they are asked for.
    """

    def __init__(self, stream: BinaryIO, size: int, most: int, path: Path) -> None:
        super().__init__()
        self._stream, self._size, self._left, self._path = stream, size, most, path
        self.ended = False  # whether more was asked for than was there

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, count: int | None = -1, /) -> bytes:
        there = max(self._size - self._stream.tell(), 0)
        wanted = there if count is None or count < 0 else min(count, there)
        if wanted > self._left:
            raise ReadError(
                self._path,
                "it holds more data beside the pixels than any CT image has; is it damaged? If it is sound, set "
                f"{LIMIT_VARIABLE}",
            )
        self.ended |= count is not None and count > there
        content = self._stream.read(wanted)
        self._left -= len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _check_deflated(stream: BinaryIO, size: int, path: Path) -> bool:
    """Inflate a deflated data set once without keeping it, so that its size is known before it takes memory.

    Returns:
        Whether it is deflated.
    """
    stream.seek(PREFIX_END)
    meta = Dataset()
    bounded = cast(BinaryIO, _Bounded(stream, size, current_limits().modest_bytes // _HEADER_SHARE, path))
    for element in data_element_generator(bounded, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2):
        meta[element.tag] = element
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return False
    most, inflated = current_limits().modest_bytes, 0
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    content = stream.read(_CHUNK)
    while content and not machine.eof:
        inflated += len(machine.decompress(content, _CHUNK))
        if inflated > most:
            raise ReadError(
                path,
                f"its deflated data set inflates to more than {most / 2**20:,.0f} MiB, which no CT image has; is it "
                f"damaged? If it is sound, set {LIMIT_VARIABLE}",
            )
        content = machine.unconsumed_tail or stream.read(_CHUNK)
    return True


def _check_nesting(dataset: Dataset, path: Path) -> None:
    level: list[Dataset] = [dataset]
    for _ in range(MOST_NESTED):
        level = [item for one in level for element in one if element.VR == "SQ" for item in element.value or ()]
        if not level:
            return
    raise ReadError(path, f"its sequences are nested deeper than {MOST_NESTED} levels; is it damaged?")


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
