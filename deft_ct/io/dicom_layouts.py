"""Folders of DICOM files that are something else than one CT series: what they are, and which command to use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from deft_ct.io.dicom_ct_pd import DETECTOR_ROWS, FOCAL_ANGLE
from deft_ct.io.errors import ReadError
from deft_ct.runtime.printable import printable

RAW_PROJECTION = "raw projection of a scanner (DICOM-CT-PD)"
"""What a file of DICOM-CT-PD is, in words."""
PROJECTIONS_COMMAND = "deft-ct reconstruct --projections"
"""The command that reconstructs raw projections."""

_AAPM = re.compile(r"(full|quarter)_[13]mm(_sharp)?", re.IGNORECASE)
_TCIA = re.compile(r"(full|low) dose (images|projections)", re.IGNORECASE)
_NAMED = 4


def is_raw_projection(header: Dataset) -> bool:
    """Whether a header has the detector of DICOM-CT-PD."""
    return any(tag in header for tag in (DETECTOR_ROWS, FOCAL_ANGLE))


def raw_projections_error(source: Path, count: int) -> ReadError:
    """The error for a folder of raw projections where images are expected."""
    return ReadError(
        source,
        f"it holds {count} x {RAW_PROJECTION}, not images: reconstruct them with `{PROJECTIONS_COMMAND} "
        f"{printable(source)}`",
    )


def check_one_folder(source: Path, folders: Iterable[Path]) -> None:
    """Refuse a folder of a known collection that holds several series of images.

    Args:
        source: what the user named.
        folders: of the CT images that would be read as one series.

    Raises:
        ReadError: it says what it is and names the folders of the series, and the commands.
    """
    below = sorted(set(folders))
    for pattern, kind, what in (
        (_AAPM, "aapm", "the AAPM 2016 Low Dose CT Grand Challenge"),
        (_TCIA, "ldct", "TCIA's LDCT-and-Projection-data"),
    ):
        mine = [folder for folder in below if pattern.search(folder.name)]
        if len(mine) > 1:
            raise ReadError(
                source,
                f"it holds {len(mine)} series of {what} ({_listed(source, mine)}): name one of these folders, as in "
                f"`deft-ct reconstruct {printable(mine[0])}`; `deft-ct data check {printable(source)}` lists all, and "
                f"`deft-ct compare --data {kind}:{printable(source)}` takes them together",
            )


def in_folders(files: Sequence[Path]) -> str:
    """The folders of copies in words, where they lie in several; else an empty text."""
    folders = sorted({str(path.parent) for path in files})
    if len(folders) < 2:
        return ""
    more = f", and {len(folders) - _NAMED} more" if len(folders) > _NAMED else ""
    return f"in the folders {', '.join(printable(f) for f in folders[:_NAMED])}{more}; name one of them"


def _listed(source: Path, folders: Sequence[Path]) -> str:
    names = [printable(f.relative_to(source) if f.is_relative_to(source) else f) for f in folders[:_NAMED]]
    return ", ".join(names) + (", ..." if len(folders) > _NAMED else "")
