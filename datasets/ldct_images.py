"""TCIA LDCT-and-Projection-data: the images that come with the raw data, one patient at a time.

Moen et al. (2021), Medical Physics 48, 902, doi:10.1002/mp.14594; collection doi:10.7937/9NPB-2637. Folders are called
``L004/<date and study>/<number>-Full Dose Images-<number>``, in capitals or not. Low-dose images are there for Siemens
scanners alone. There is no official split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deft_ct.datasets.ldct_projection import find_projection_series
from deft_ct.datasets.patient_series import patient_slices
from deft_ct.datasets.slices import SliceStack
from deft_ct.io.dicom_read import read_dicom_series
from deft_ct.io.series import Series

PATIENT = re.compile(r"[CLN]\d{3}")
"""Name of a patient's folder: chest, abdomen (liver) or head."""

ImageDose = Literal["full", "low"]


@dataclass(frozen=True)
class LDCTImages:
    """The images of one dose.

    Args:
        root: folder that holds the patients' folders, at any depth.
        dose: "full" or "low".

    Raises:
        FileNotFoundError: no such folder.
    """

    root: Path
    dose: ImageDose = "full"

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise FileNotFoundError(f"no such folder: {self.root}")

    @property
    def name(self) -> str:
        """Of the chosen kind of images."""
        return f"ldct:{self.dose}"

    def patients(self) -> tuple[str, ...]:
        """Patients that have images of this dose."""
        kind = f"{self.dose} dose images"
        folders = (f for f in self.root.rglob("*") if f.is_dir() and kind in f.name.lower())
        parts = (part for f in folders for part in f.relative_to(self.root).parts[:-1])
        return tuple(sorted({part for part in parts if PATIENT.fullmatch(part)}))

    def series(self, patient: str) -> Series:
        """The images of a patient in HU, ordered by position.

        Raises:
            FileNotFoundError: they are not there.
            ValueError: several folders fit, or their files are no proper series.
        """
        return read_dicom_series(find_projection_series(self.root, patient, f"{self.dose} dose images"))

    def slices(self, patients: Sequence[str], *, every: int = 1, limit: int | None = None) -> SliceStack:
        """Every k-th slice of some patients, at most ``limit``."""
        return patient_slices(self.name, patients, self.series, every=every, limit=limit)
