"""How much a file that is not trusted may declare, inflate to and contain; checked before memory is taken."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from deft_ct.io.errors import ReadError

LIMIT_VARIABLE = "DEFT_CT_MAX_GIB"
_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Caps on one file.

    Args:
        file_bytes: most bytes of one file on disk.
        inflated_bytes: most bytes that compressed content (a zip, deflate, gzip) may inflate to.
        array_bytes: most bytes of the arrays that one file declares.
        members: most members of an archive, groups of a file, or files of a folder.
        inflation: most times that content may be larger than the bytes that store it ...
        modest_bytes: ... where it is larger than this; the expansion of small content is harmless.
        seconds: most time for the structure of one file in a child process.
        pixel_mm: least and largest width of a pixel or distance of slices.
        hu: largest CT number, either sign.
    """

    file_bytes: int = 64 * _GIB
    inflated_bytes: int = 4 * _GIB
    array_bytes: int = 4 * _GIB
    members: int = 100_000
    inflation: int = 200
    modest_bytes: int = _GIB // 4
    seconds: float = 10.0
    pixel_mm: tuple[float, float] = (1e-3, 100.0)
    hu: float = 1e6

    def check_declared(self, path: str | Path, declared: int, stored: int, *, what: str = "an array") -> None:
        """Refuse content before it is allocated.

        Args:
            path: the file, for the message.
            declared: bytes that the content will take in memory.
            stored: bytes that store it on disk.
            what: the content, for the message.

        Raises:
            ReadError: more than ``array_bytes``, or an expansion that no CT data has.
        """
        if declared > self.array_bytes:
            raise ReadError(
                path,
                f"it declares {what} of {_size(declared)}; at most {_size(self.array_bytes)} are read. If the file is "
                f"sound, set {LIMIT_VARIABLE}={math.ceil(declared / _GIB)}",
            )
        self.check_expansion(path, declared, stored, what=what)

    def check_expansion(self, path: str | Path, declared: int, stored: int, *, what: str = "an array") -> None:
        """The part of :meth:`check_declared` that holds for the sum of many arrays, too.

        Raises:
            ReadError: an expansion that no CT data has.
        """
        if declared > self.modest_bytes and declared > self.inflation * max(stored, 1):
            raise ReadError(
                path,
                f"it declares {what} of {_size(declared)} but stores {_size(stored)} for it, an expansion of more than "
                f"{self.inflation} times, which no CT data has; is it damaged? If the file is sound, set "
                f"{LIMIT_VARIABLE}={math.ceil(declared / _GIB)}",
            )

    def check_spacing(self, path: str | Path, spacing_mm: float, *, what: str = "the pixel size") -> float:
        """A width of a pixel, or a distance of slices, that a scanner can have.

        Raises:
            ReadError: it lies outside of ``pixel_mm``.
        """
        least, most = self.pixel_mm
        if not least <= spacing_mm <= most:
            raise ReadError(path, f"{what} is {spacing_mm:g} mm; expected {least:g} to {most:g} mm")
        return float(spacing_mm)


LIMITS = Limits()
"""What holds where the user says nothing."""


def current_limits() -> Limits:
    """:data:`LIMITS`, or those that the environment variable ``DEFT_CT_MAX_GIB`` asks for.

    The variable sets ``inflated_bytes``, ``array_bytes`` and ``modest_bytes`` in GiB: who sets it vouches for the file.

    Raises:
        ValueError: it is not a number above 0.
    """
    text = os.environ.get(LIMIT_VARIABLE)
    if not text:
        return LIMITS
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 < gib <= 2**20:
        raise ValueError(f"{LIMIT_VARIABLE} must be a number of GiB above 0, got {text!r}")
    size = max(int(gib * _GIB), 1)
    return replace(LIMITS, inflated_bytes=size, array_bytes=size, modest_bytes=size)


def _size(count: int) -> str:
    for unit, scale in (("GiB", _GIB), ("MiB", 2**20), ("kiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
