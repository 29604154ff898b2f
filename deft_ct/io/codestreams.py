"""The size that a compressed image declares in its own header, read without decoding it.

A decoder allocates what the compressed image says, whatever the DICOM header around it says.
"""

from __future__ import annotations

import struct

_JPEG_2000 = b"\xff\x4f\xff\x51"  # start of codestream, size marker
_JPEG = b"\xff\xd8"
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # markers among SOF0..SOF15 that start no frame
_JPEG_LS = 0xF7


def declared_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG 2000, JPEG or JPEG-LS image; None for another one (RLE), which declares none.

    Raises:
        ValueError: it is damaged before its size is said.
    """
    start = frame.find(_JPEG_2000, 0, 4096)  # a JP2 file has boxes before its codestream
    try:
        if start >= 0:
            right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
            return bottom - top, right - left
        return _jpeg_size(frame) if frame.startswith(_JPEG) else None
    except struct.error as error:
        raise ValueError("the compressed image ends before it says its size") from error


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    place = 2
    while True:
        mark, kind, length = struct.unpack_from(">BBH", frame, place)
        if mark != 0xFF or length < 2:
            raise ValueError("the compressed image has a damaged marker before its size")
        if kind == 0xFF:  # filling
            place += 1
            continue
        if (0xC0 <= kind <= 0xCF and kind not in _NOT_FRAMES) or kind == _JPEG_LS:
            rows, columns = struct.unpack_from(">HH", frame, place + 5)
            return rows, columns
        place += 2 + length
