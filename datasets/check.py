"""What data lie in a folder or file, and whether they are complete."""

from __future__ import annotations

from pathlib import Path

from deft_ct.datasets.check_dicom import check_aapm, check_ldct, check_series
from deft_ct.datasets.check_lodopab import check_lodopab
from deft_ct.datasets.check_measured import check_file, check_htc2022, check_two_detect, check_walnuts
from deft_ct.datasets.findings import DataFindings

_CHECKS = (
    check_lodopab, check_two_detect, check_walnuts, check_htc2022, check_aapm, check_ldct, check_file, check_series,
)  # fmt: skip
"""From the most to the least special layout."""


def check_data(path: Path) -> DataFindings:
    """Look at every file of a folder, or at one file.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: it holds nothing that is known.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    for check in _CHECKS:
        found = check(path)
        if found is not None:
            return found
    if path.is_dir():
        found = DataFindings("folder of files")
        for file in sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")):
            one = check_file(file)
            if one is not None:
                found.files.extend(one.files)
                found.commands.extend(one.commands)
        if found.files:
            return found
    raise ValueError(
        f"{path} holds nothing that is known: expected LoDoPaB-CT, AAPM 2016, TCIA LDCT-and-Projection-data, 2DeteCT, "
        "walnuts, HTC 2022, DICOM series, raw projections (DICOM-CT-PD), NIfTI, HDF5 slice datasets or data-exchange "
        "files"
    )
