"""Which images of a series are its slices: stray images, copies and scan phases are told apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from deft_ct.io.dicom_files import DicomFile, DicomSeriesError
from deft_ct.io.dicom_frames import slice_uid
from deft_ct.io.dicom_layouts import in_folders
from deft_ct.io.dicom_pixels import read_hu
from deft_ct.runtime.printable import printable

PHASES = (
    "TemporalPositionIdentifier", "AcquisitionNumber", "NominalPercentageOfCardiacPhase", "TriggerTime",
    "AcquisitionTime", "ContentTime", "ConvolutionKernel", "SeriesDescription",
)  # fmt: skip
"""Attributes that tell phases or reconstructions of one series apart, in the order in which they are tried."""
SAME_PLACE_MM = 0.01
_COSINE = 0.5  # of the angle to the normal of most images: a scout view is perpendicular
_NAMED = 12
_PAGES = {"SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "DOSE", "DOSE INFO", "DOSE_INFO", "PROTOCOL", "REPORT"}


@dataclass(frozen=True)
class Selected:
    """What is taken of a series.

    Attributes:
        files: its slices.
        notes: what was left out, in words.
    """

    files: list[DicomFile]
    notes: tuple[str, ...] = ()


def is_localizer(header: Dataset) -> bool:
    """Whether an image is a scout view."""
    return "LOCALIZER" in _image_type(header)


def is_page(header: Dataset) -> bool:
    """Whether an image has no place in the patient: a dose page, a screen shot, a secondary capture."""
    placed = any(header.get(name) not in (None, "") for name in ("ImagePositionPatient", "ImageOrientationPatient"))
    return not placed or _count(header.get("SamplesPerPixel"), 1) != 1 or bool(_PAGES & set(_image_type(header)))


def without_strays(files: Sequence[DicomFile]) -> Selected:
    """Leave out what is no slice beside slices: scout views, pages, and images that look another way.

    Where nothing would be left, everything stays.
    """
    scouts = [f for f in files if is_localizer(f.header)]
    pages = [f for f in files if not is_localizer(f.header) and is_page(f.header)]
    left = [f for f in files if not is_localizer(f.header) and not is_page(f.header)]
    if not left:
        return Selected(list(files))
    notes = []
    if scouts:
        notes.append(f"skipped {len(scouts)} localizer image(s) in the series")
    if pages:
        notes.append(f"skipped {len(pages)} image(s) of the series without a place in the patient: {_names(pages)}")
    crosswise = _crosswise(left)
    if crosswise:
        notes.append(f"skipped {len(crosswise)} image(s) that are perpendicular to the slices: {_names(crosswise)}")
        left = [f for f in left if f not in crosswise]
    other = _other_kind(left)
    if other:
        notes.append(f"skipped {len(other)} image(s) of another kind and size than the slices: {_names(other)}")
        left = [f for f in left if f not in other]
    return Selected(left, tuple(notes))


def without_copies(files: Sequence[DicomFile]) -> Selected:
    """Leave out images that are there twice, with the same place and the same CT numbers.

    Raises:
        DicomSeriesError: two files have one SOPInstanceUID and different content.
    """
    kept: list[DicomFile] = []
    dropped: list[DicomFile] = []
    for group in _at_one_place(files):
        mine: list[tuple[DicomFile, NDArray[np.float32] | None]] = []
        for file in group:
            hu = read_hu(file).hu if len(group) > 1 else None
            if any(hu is not None and other is not None and np.array_equal(hu, other) for _, other in mine):
                dropped.append(file)
            else:
                mine.append((file, hu))
        kept += [file for file, _ in mine]
    uid, count = Counter(slice_uid(f.header) for f in kept).most_common(1)[0]
    if count > 1:
        copies = [f for f in kept if slice_uid(f.header) == uid]
        where = in_folders([f.path for f in copies])
        where = where or f"{', '.join(f.name for f in copies[:3])}; remove the wrong ones"
        raise copies[0].refused(f"the same slice is there {count} times with different content: {where}")
    if not dropped:
        return Selected(list(files))
    what = "copy of a slice" if len(dropped) == 1 else "copies of slices"
    note = f"left out {len(dropped)} identical {what}: {_names(dropped)}"
    wanted = {id(file) for file in kept}
    return Selected([file for file in files if id(file) in wanted], (note,))


def choose_phase(files: Sequence[DicomFile], phase: str | None, source: Path) -> Selected:
    """The slices of one phase, where several slices lie at the same place.

    Args:
        files: slices without copies.
        phase: ``"VALUE"`` or ``"NAME=VALUE"`` of an attribute of :data:`PHASES`; None to take a series that has one.
        source: where they come from, for messages.

    Raises:
        DicomSeriesError: there are several phases and none is chosen, or not this one; the message lists them.
    """
    groups = _at_one_place(files)
    most = max(len(group) for group in groups)
    if most == 1 and phase is None:
        return Selected(list(files))
    for name in PHASES:
        parts: dict[str, list[DicomFile]] = defaultdict(list)
        for file in files:
            parts[_text(file.header, name)].append(file)
        if _tells_apart(parts, most, len(files), phase is not None):
            return _one_phase(name, parts, phase, source)
    if most == 1:
        raise DicomSeriesError(source, f"the series has one phase only: leave out the phase {printable(phase)!r}")
    by_time = _by_time(groups, most)
    if by_time is None:
        return Selected(list(files))  # the check of the positions names two of them
    return _one_phase(f"order of {by_time[0]}", by_time[1], phase, source)


def _one_phase(name: str, parts: dict[str, list[DicomFile]], phase: str | None, source: Path) -> Selected:
    listed = ", ".join(f"{printable(value) or 'none'} ({len(part)} slices)" for value, part in _shown(parts))
    if phase is None:
        raise DicomSeriesError(
            source,
            f"it holds {len(parts)} scan phases or reconstructions at the same places; choose one with phase=... or "
            f"with --phase VALUE, by {name}: {listed}",
        )
    wanted, _, value = phase.rpartition("=")
    if (wanted and wanted != name) or value not in parts:
        raise DicomSeriesError(source, f"it has no phase {printable(phase)}; it has, by {name}: {listed}")
    others = sum(len(part) for part in parts.values()) - len(parts[value])
    return Selected(parts[value], (f"took the phase {name}={printable(value)}, left out {others} slices of others",))


def _shown(parts: dict[str, list[DicomFile]]) -> list[tuple[str, list[DicomFile]]]:
    def key(item: tuple[str, list[DicomFile]]) -> tuple[float, str]:
        try:
            return float(item[0]), item[0]
        except ValueError:
            return float("inf"), item[0]

    return sorted(parts.items(), key=key)[:_NAMED]


def _tells_apart(parts: dict[str, list[DicomFile]], most: int, count: int, chosen: bool) -> bool:
    """Whether the parts are stacks: more than one, without two slices at one place, and not one for each slice."""
    if len(parts) < 2 or (len(parts) > max(most, 2) and len(parts) * 2 > count):
        return False
    if most == 1 and not chosen:
        return False
    return all(len(_at_one_place(part)) == len(part) for part in parts.values())


def _by_time(groups: list[list[DicomFile]], most: int) -> tuple[str, dict[str, list[DicomFile]]] | None:
    """The first, second ... image at every place, by the time when it was taken; None unless all places have all."""
    if any(len(group) < most for group in groups):
        return None
    for name in ("AcquisitionTime", "ContentTime", "InstanceNumber"):
        parts: dict[str, list[DicomFile]] = {str(n): [] for n in range(1, most + 1)}
        for group in groups:
            values = [_text(file.header, name) for file in group]
            if len(set(values)) < len(group) or "" in values:
                break
            order = sorted(zip(values, group, strict=True), key=lambda pair: (len(pair[0].partition(".")[0]), pair[0]))
            for n, (_, file) in enumerate(order, start=1):
                parts[str(n)].append(file)
        else:
            return name, parts
    return None


def _at_one_place(files: Sequence[DicomFile]) -> list[list[DicomFile]]:
    """Images with the same place, orientation and size, in the order of the first of each."""
    groups: dict[tuple[float, ...], list[DicomFile]] = {}
    for file in files:
        header = file.header
        place = [round(float(v) / SAME_PLACE_MM) for v in header.ImagePositionPatient]
        cosines = [round(float(v), 3) for v in header.ImageOrientationPatient]
        size = [int(header.Rows), int(header.Columns), *(round(float(v), 4) for v in header.PixelSpacing)]
        groups.setdefault((*place, *cosines, *size), []).append(file)
    return list(groups.values())


def _crosswise(files: Sequence[DicomFile]) -> list[DicomFile]:
    """The minority whose normal is far from that of most images."""
    normals = {id(f): normal for f in files if (normal := _normal(f.header)) is not None}
    if len(normals) < 3:
        return []
    middle = np.median([n if n @ np.ones(3) >= 0 else -n for n in normals.values()], axis=0)
    length = float(np.linalg.norm(middle))
    if length == 0:
        return []
    odd = [f for f in files if id(f) in normals and abs(float(normals[id(f)] @ middle)) / length < _COSINE]
    return odd if len(odd) * 2 < len(files) else []


def _normal(header: Dataset) -> NDArray[np.float64] | None:
    try:
        values = np.asarray(header.ImageOrientationPatient, float)
        normal: NDArray[np.float64] = np.cross(values[:3], values[3:])
    except (AttributeError, TypeError, ValueError):
        return None
    return normal if values.shape == (6,) and np.isfinite(normal).all() else None


def _other_kind(files: Sequence[DicomFile]) -> list[DicomFile]:
    """The minority that differs from most images both in the size of its matrix and in its ImageType."""
    sizes = Counter((f.header.get("Rows"), f.header.get("Columns")) for f in files)
    kinds = Counter(_image_type(f.header) for f in files)
    size, kind = sizes.most_common(1)[0][0], kinds.most_common(1)[0][0]
    odd = [
        f for f in files if (f.header.get("Rows"), f.header.get("Columns")) != size and _image_type(f.header) != kind
    ]
    return odd if len(odd) * 2 < len(files) else []


def _image_type(header: Dataset) -> tuple[str, ...]:
    values = header.get("ImageType") or ()
    return tuple(str(v).upper() for v in ([values] if isinstance(values, str) else values))


def _count(value: object, default: int) -> int:
    try:
        return default if value in (None, "") else int(str(value))
    except ValueError:
        return default


def _text(header: Dataset, name: str) -> str:
    value = header.get(name)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def _names(files: Sequence[DicomFile]) -> str:
    return ", ".join(f.name for f in files[:3]) + (", ..." if len(files) > 3 else "")
