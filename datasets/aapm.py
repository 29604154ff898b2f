"""AAPM 2016 Low Dose CT Grand Challenge: full- and quarter-dose images of ten training patients.

The challenge's terms forbid passing slices on. Two folder layouts are in circulation:

- older: ``L067/full_1mm/*.IMA``, also ``quarter_1mm``, ``full_3mm``, ``quarter_3mm``, and ``full_1mm_sharp`` (sharp
  kernel);
- newer: ``Training_Image_Data/1mm B30/full_1mm/L067/full_1mm/*.IMA`` (kernel folders ``1mm B30``, ``1mm D45``,
  ``3mm B30``, ``3mm D45``, then a folder for the dose such as ``FD_1mm`` or ``QD_1mm``).

Derived copies (PNG, NPY, slices scaled by their own maximum) have lost their CT numbers and are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deft_ct.datasets.patient_series import patient_slices
from deft_ct.datasets.slices import SliceStack
from deft_ct.io.dicom_read import read_dicom_series
from deft_ct.io.series import Series
from deft_ct.runtime.data_split import DataSplit

PATIENTS = ("L067", "L096", "L109", "L143", "L192", "L286", "L291", "L310", "L333", "L506")
"""The training patients; the usual split holds out L506 (or L067)."""
HELD_OUT = "L506"
SUFFIXES = (".ima", ".dcm")

Dose = Literal["full", "quarter"]
Kernel = Literal["B30", "D45"]


@dataclass(frozen=True)
class AAPMChallenge:
    """The images of the challenge, one series at a time.

    Args:
        root: the unpacked folder, of either layout.
        dose: "full" or "quarter".
        thickness_mm: slice thickness, 1 or 3.
        kernel: "B30" (soft) or "D45" (sharp).

    Raises:
        FileNotFoundError: ``root`` is not a folder.
        ValueError: an unknown dose, thickness or kernel.
    """

    root: Path
    dose: Dose = "full"
    thickness_mm: int = 1
    kernel: Kernel = "B30"

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        if self.dose not in ("full", "quarter") or self.thickness_mm not in (1, 3) or self.kernel not in ("B30", "D45"):
            raise ValueError(
                "expected dose 'full' or 'quarter', thickness_mm 1 or 3, kernel 'B30' or 'D45', got "
                f"{self.dose!r}, {self.thickness_mm!r}, {self.kernel!r}"
            )
        if not self.root.is_dir():
            raise FileNotFoundError(f"no such folder: {self.root}")

    def patients(self) -> tuple[str, ...]:
        """The training patients that have the chosen series on disk."""
        return tuple(p for p in PATIENTS if self._folders(p))

    def folder(self, patient: str) -> Path:
        """The folder of a patient's chosen series.

        Raises:
            FileNotFoundError: it is not there; the message lists what is.
            ValueError: more than one folder fits, or the patient is unknown.
        """
        if patient not in PATIENTS:
            raise ValueError(f"unknown patient {patient!r}; the training patients are {', '.join(PATIENTS)}")
        found = self._folders(patient)
        if len(found) == 1:
            return found[0]
        wanted = f"{self.dose} dose, {self.thickness_mm} mm, {self.kernel}"
        if not found:
            others = sorted(str(f.relative_to(self.root)) for f in self._all_folders(patient))
            raise FileNotFoundError(
                f"{self.root} has no series of {patient} with {wanted} (*.IMA or *.dcm); it has {others or 'none'}"
            )
        raise ValueError(
            f"{len(found)} folders fit {patient} with {wanted}: {[str(f) for f in found]}; keep one of them"
        )

    def series(self, patient: str) -> Series:
        """Read a patient's series in HU, ordered by position.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: the folder is ambiguous or its DICOM files are not a proper series.
        """
        return read_dicom_series(self.folder(patient))

    def slices(
        self, patients: Sequence[str], *, split: DataSplit | None = None, every: int = 1, limit: int | None = None
    ) -> SliceStack:
        """Every k-th slice of the chosen series of some patients, at most ``limit``.

        Raises:
            FileNotFoundError: a series is not there.
            ReadError: its files are damaged or no proper series.
        """
        return patient_slices(self.name, patients, self.series, split=split, every=every, limit=limit)

    @property
    def name(self) -> str:
        """Of the chosen kind of images."""
        return f"aapm:{self.dose}_{self.thickness_mm}mm_{self.kernel}"

    def _all_folders(self, patient: str) -> list[Path]:
        folders = {
            path.parent
            for path in self.root.rglob("*")
            if path.suffix.lower() in SUFFIXES and patient in path.relative_to(self.root).parts[:-1]
        }
        return sorted(folders)

    def _folders(self, patient: str) -> list[Path]:
        return [f for f in self._all_folders(patient) if self._fits(f.relative_to(self.root).parts)]

    def _fits(self, parts: tuple[str, ...]) -> bool:
        last = parts[-1].lower()
        if not last.startswith(f"{self.dose}_{self.thickness_mm}mm"):
            return False
        if last.endswith("_sharp"):
            return self.kernel == "D45"
        named = [kernel for kernel in ("b30", "d45") if any(kernel in part.lower().split() for part in parts)]
        # The older layout names the sharp kernel only.
        return (named or ["b30"]) == [self.kernel.lower()]
