"""Headers without the attributes that identify a patient: the Basic Application Level Confidentiality Profile.

DICOM PS3.15, Annex E, Table E.1-1 says what happens to each attribute. The table is that of the package
dicom-anonymizer, an optional dependency; here it is applied at every depth of nested sequences. Pixels are not changed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, Literal

from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID

from deft_ct.io.dicom_files import DicomSeriesError
from deft_ct.io.parsing import parsing
from deft_ct.io.series import Series

NO_DATE = datetime(1900, 1, 1)
"""The dummy for every date and time."""
STATEMENTS = (
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)  # fmt: skip
"""Attributes that say that, and how, a dataset was de-identified."""

Action = Literal["remove", "empty", "dummy", "uid", "items"]

# Groups of the table -> what is done. Where the profile leaves a choice by the type of the attribute, the result is
# valid for every type that it names. "items" keeps a sequence and replaces what its items hold.
_ACTIONS: dict[str, Action] = {
    "X_TAGS": "remove", "Z_TAGS": "empty", "D_TAGS": "dummy", "U_TAGS": "uid", "Z_D_TAGS": "dummy", "X_Z_TAGS": "empty",
    "X_D_TAGS": "dummy", "X_Z_D_TAGS": "dummy", "X_Z_U_STAR_TAGS": "items",
}  # fmt: skip
_TABLE = "dicomfields_2026c"
_METHOD = "DICOM PS3.15 Basic Application Level Confidentiality Profile"
_DICOM_ROOT = "1.2.840.10008."  # UIDs that the standard defines: classes, syntaxes, coding schemes

_TEXT = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_NUMBERS = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
_FIXED = {
    "AS": "000Y", "DA": NO_DATE.strftime("%Y%m%d"), "DT": NO_DATE.strftime("%Y%m%d%H%M%S"),
    "TM": NO_DATE.strftime("%H%M%S"), "DS": "0", "IS": "0", "UR": "http://anonymized.invalid",
}  # fmt: skip


def deidentified(series: Series, *, allow_burned_in: bool = False) -> Series:
    """The series with headers that do not identify the patient; its pixels are the same.

    Attributes are removed, emptied or replaced by dummies as the profile says, in nested sequences as well. Private and
    unknown attributes are removed. UIDs are replaced by ones that follow from a random key of this call: the same UID
    becomes the same new one everywhere, and nobody can tell the old one from it.

    Args:
        series: not changed.
        allow_burned_in: accept images that are known to show text (BurnedInAnnotation YES).

    Returns:
        The series with new headers and without notes.

    Raises:
        ImportError: dicom-anonymizer is missing or too old; the message names the extra.
        DicomSeriesError: the pixels show text, or a header is damaged; it names the file.
    """
    _table()  # a missing package is no damaged header
    if not allow_burned_in:
        for header in series.headers:
            if is_burned_in(header):
                raise DicomSeriesError(
                    series.file_of(header),
                    "BurnedInAnnotation is YES, and text in the pixels is not removed; choose another series, or allow "
                    "it with --allow-burned-in (allow_burned_in=True) if you have seen that the text tells nothing",
                )
    profile = _Profile(secrets.token_bytes(32))
    headers = []
    for header in series.headers:
        with parsing(series.file_of(header), "a header to be de-identified"):
            headers.append(profile.header(header))
    return replace(series, headers=tuple(headers), notes=())


def is_burned_in(header: Dataset) -> bool:
    """Whether an image says that text is part of its pixels."""
    return str(header.get("BurnedInAnnotation", "") or "").strip().upper() == "YES"


class _Profile:
    """The profile with one key: equal values have equal replacements."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def header(self, source: Dataset) -> Dataset:
        """A copy without identifying attributes that says so."""
        header = self._cleaned(source)
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
        code.CodeMeaning = "Basic Application Confidentiality Profile"
        header.PatientIdentityRemoved = "YES"
        header.DeidentificationMethod = _METHOD
        header.DeidentificationMethodCodeSequence = DicomSequence([code])
        header.LongitudinalTemporalInformationModified = "REMOVED"
        return header

    def _cleaned(self, source: Dataset) -> Dataset:
        result = Dataset()
        for element in source:
            # No private attribute is in the dictionary, and none of the curves and overlays, which the profile removes.
            # Long values of unknown representation may be whole sequences.
            if element.VR == "UN" or not dictionary_has_tag(element.tag):
                continue
            action = _table().get(int(element.tag))
            if action is None and element.VR not in ("SQ", "UI"):
                result.add(deepcopy(element))
                continue
            value = self._replacement(element, action)
            if value is not None:
                result.add_new(element.tag, element.VR, value)
        return result

    def _replacement(self, element: DataElement, action: Action | None) -> Any:
        """The new value; None for an attribute that is removed."""
        if element.VR == "SQ":
            # No derived object requires one of the sequences that may only stay empty or with dummies.
            return DicomSequence([self._cleaned(i) for i in element.value]) if action in (None, "items") else None
        if action == "remove":
            return None
        if action == "empty":
            return b"" if isinstance(element.value, bytes) else ""
        if element.VR == "UI":
            values = element.value if isinstance(element.value, MultiValue) else [element.value]
            return [self._uid(str(value or ""), listed=action is not None) for value in values]
        return self._dummy(element)

    def _dummy(self, element: DataElement) -> Any:
        if element.VR in _TEXT:
            return "ANON" + self._digest(str(element.value)).hex()[:12].upper()
        if element.VR in _NUMBERS:
            return 0
        # Bytes of zero are valid in each of the binary representations; others are removed.
        return _FIXED.get(element.VR, bytes(8) if isinstance(element.value, bytes) else None)

    def _uid(self, uid: str, *, listed: bool) -> UID:
        if not uid or (not listed and uid.startswith(_DICOM_ROOT)):
            return UID(uid)
        return UID(f"2.25.{uuid.UUID(bytes=self._digest(uid)[:16], version=4).int}")

    def _digest(self, value: str) -> bytes:
        return hmac.digest(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256)


@cache
def _table() -> dict[int, Action]:
    """Tag -> what the profile does to it. Repeating groups (curves, overlays) are left out."""
    try:
        from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

        groups = dicom_anonymization_database_selector(_TABLE)
    except (ImportError, ValueError) as error:
        raise ImportError(
            "de-identification needs dicom-anonymizer 2.1 or newer: pip install 'deft-ct[deidentify]'"
        ) from error
    return {tag[0] << 16 | tag[1]: action for name, action in _ACTIONS.items() for tag in groups[name] if len(tag) == 2}
