"""Dates, times and UIDs that a derived image may inherit: those that are what DICOM PS3.5, 6.2 asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.valuerep import DA, DT, TM

_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
_MOMENT = re.compile(r"\d{4}(\d{2}(\d{2}(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?")


def is_valid_uid(value: object) -> bool:
    """Whether a value is a UID: numbers without leading zeros, at most 64 characters."""
    return UID(str(value), validation_mode=IGNORE).is_valid


def _parses(pattern: re.Pattern[str], parse: Callable[[str], object]) -> Callable[[str], bool]:
    def valid(text: str) -> bool:
        try:
            return pattern.fullmatch(text) is not None and parse(text) is not None
        except (ValueError, OverflowError):
            return False

    return valid


_VALID: Mapping[str, Callable[[str], bool]] = {
    "DA": _parses(_DATE, DA), "TM": _parses(_TIME, TM), "DT": _parses(_MOMENT, DT), "UI": is_valid_uid,
}  # fmt: skip


def drop_invalid(dataset: Dataset) -> None:
    """Delete dates, times and UIDs that are invalid, in sequences, too. Empty ones stay.

    Args:
        dataset: changed in place.
    """
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value or ():
                drop_invalid(item)
        elif not _is_valid(element):
            del dataset[element.tag]


def _is_valid(element: DataElement) -> bool:
    valid = _VALID.get(element.VR)
    if valid is None or element.value in (None, ""):
        return True
    values = element.value if isinstance(element.value, MultiValue | list) else [element.value]
    return all(valid(str(value).rstrip(" \0")) for value in values)
