"""Slices of DICOM series that are read patient by patient: the AAPM challenge and TCIA's low-dose collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from deft_ct.datasets.slices import CTSlice, SliceStack, check_choice, spread_order, take_turns
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
        limit: of these, keep at most so many, spread over the patients, see :func:`~deft_ct.datasets.slices.chosen`;
            patients beyond them are not read.

    Raises:
        FileNotFoundError: a series is not there.
        ReadError: its files are damaged or no proper series.
        ValueError: no slice, slices of different sizes, or ``every`` or ``limit`` < 1.
    """
    check_choice(every, limit)
    lists: list[list[CTSlice]] = []
    first = 0
    for patient in patients:
        if limit is not None and sum(map(bool, lists)) == limit:
            break  # each patient gives a slice before any gives a second one
        series = read(patient)
        places = [n for n in range(len(series.hu)) if (first + n) % every == 0]
        order = list(range(len(places))) if limit is None else spread_order(len(places))[:limit]
        lists.append([_slice(series, patient, places[k], first + places[k]) for k in order])
        first += len(series.hu)
    kept = [item for own in lists for item in own] if limit is None else take_turns(lists, limit)
    ordered = sorted(kept, key=lambda item: item.position)
    return SliceStack(name, [(item, item.group) for item in ordered], split=split, every=every, limit=limit)


def _slice(series: Series, patient: str, n: int, position: int) -> CTSlice:
    z = float(series.headers[n].ImagePositionPatient[2])
    return CTSlice(torch.tensor(series.hu[n : n + 1]), series.pixel_mm, patient, n, position, z)
