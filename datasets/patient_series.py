"""Slices of DICOM series that are read patient by patient: the AAPM challenge and TCIA's low-dose collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from deft_ct.datasets.slices import CTSlice, SliceStack, chosen
from deft_ct.io.series import Series
from deft_ct.runtime.data_split import DataSplit


def patient_slices(
    name: str,
    patients: Sequence[str],
    read: Callable[[str], Series],
    *,
    split: DataSplit | None = None,
    every: int = 1,
    limit: int | None = None,
) -> SliceStack:
    """Every k-th slice of one series of each patient. Of each series only the slices that are kept stay in memory.

    Args:
        name: of the data.
        patients: in order.
        read: the series of a patient.
        split: which part of the data it is.
        every: keep every k-th slice of the whole list.
        limit: of these, keep at most so many; patients beyond them are not read.

    Raises:
        FileNotFoundError: a series is not there.
        ReadError: its files are damaged or no proper series.
        ValueError: no slice, slices of different sizes, or ``every`` or ``limit`` < 1.
    """
    kept = chosen(_slices(patients, read), every, limit)
    return SliceStack(name, kept, split=split, every=every, limit=limit)


def _slices(patients: Sequence[str], read: Callable[[str], Series]) -> Iterator[tuple[CTSlice, str]]:
    position = 0
    for patient in patients:
        series = read(patient)
        for n in range(len(series.hu)):
            z = float(series.headers[n].ImagePositionPatient[2])
            hu = torch.tensor(series.hu[n : n + 1])
            yield CTSlice(hu, series.pixel_mm, patient, n, position, z), patient
            position += 1
