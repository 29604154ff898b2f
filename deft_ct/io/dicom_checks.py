"""Checks of a DICOM series: one clear error for each thing that would make a wrong volume."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from deft_ct.io.dicom_files import DicomFile
from deft_ct.io.dicom_frames import is_multi_frame
from deft_ct.io.limits import current_limits
from deft_ct.io.parsing import parsing
from deft_ct.runtime.printable import printable

DIRECTION_TOLERANCE = 1e-3
"""Largest difference of direction cosines within one orientation."""
SPACING_TOLERANCE = 0.2
"""Largest relative deviation of one slice distance; positions are rounded, and tables jitter."""
GRID_TOLERANCE = 0.25
"""Largest distance of a slice from an even grid, in slice distances: beyond it a volume would be bent."""
MOST_MM = 1e5
"""Farthest that a slice may lie from the origin of the patient's axes."""
MOST_TILT = 45.0
"""Degrees that no gantry tilts: slices sheared by more are mixed up."""
_ROUNDING = 0.05
MIN_AXIAL = math.cos(math.radians(45.0))

_REQUIRED = (
    "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip


def check_slice(file: DicomFile) -> None:
    """Check what a single slice must have.

    Raises:
        ReadError: it is damaged in a way that nobody foresaw.
        DicomSeriesError: a multi-frame image, a missing attribute, a value that is no number or out of range, colour,
            or not HU.
    """
    with parsing(file.path, "a CT image", member=None if file.member is None else file.name):
        _check_slice(file)


def _check_slice(file: DicomFile) -> None:
    header = file.header
    if file.frame is None and is_multi_frame(header):
        raise file.refused(
            "it holds several frames without saying where they lie (no enhanced CT image); export one file per slice"
        )
    missing = [name for name in _REQUIRED if header.get(name) in (None, "")]
    if missing:
        raise file.refused(f"it lacks {', '.join(missing)}; export the original CT images again")
    for name, count in (
        ("PixelSpacing", 2), ("ImagePositionPatient", 3), ("ImageOrientationPatient", 6),
        ("RescaleSlope", 1), ("RescaleIntercept", 1), ("Rows", 1), ("Columns", 1),
    ):  # fmt: skip
        try:
            values = np.atleast_1d(np.asarray(header[name].value, float))
        except ValueError:
            values = np.array([np.nan])
        if values.size != count or not np.isfinite(values).all():
            raise file.refused(f"{name} must be {count} finite number(s), got {_shown(header[name].value)}")
    spacing = [float(v) for v in header.PixelSpacing]
    if float(header.RescaleSlope) == 0 or min(spacing) <= 0:
        raise file.refused("RescaleSlope and PixelSpacing must not be zero or negative")
    _check_range(file, spacing)
    rescale_type = str(header.get("RescaleType", "") or "HU").upper()
    if not rescale_type.startswith(("HU", "US", "HOUNS", "HOUNDS")):
        raise file.refused(f"it holds {printable(rescale_type)} values, not HU; choose a series of CT numbers")
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise file.refused("it is a colour image; choose a series of CT numbers")


def _shown(value: Any) -> str:
    comma = any(
        "," in str(v) for v in ([value] if isinstance(value, str) else np.atleast_1d(np.asarray(value, object)))
    )
    return printable(value) + (" (DICOM writes decimals with a point; export it again)" if comma else "")


def _check_range(file: DicomFile, spacing: Sequence[float]) -> None:
    """Values that no scanner has come from a damaged header."""
    limits = current_limits()
    rows, columns = int(file.header.Rows), int(file.header.Columns)
    limits.check_declared(file.path, 4 * rows * columns, file.stored, what=f"{rows} x {columns} pixels")
    for value in spacing:
        limits.check_spacing(file.path, value, what="PixelSpacing")
    if max(abs(float(v)) for v in file.header.ImagePositionPatient) > MOST_MM:
        raise file.refused(f"ImagePositionPatient lies more than {MOST_MM / 1000:g} m away; the header is damaged")
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        if file.header.get(name) not in (None, ""):
            thickness = abs(float(file.header[name].value))
            if not thickness <= limits.pixel_mm[1]:
                raise file.refused(f"{name} is {thickness:g} mm; expected at most {limits.pixel_mm[1]:g} mm")


def check_alike(files: Sequence[DicomFile]) -> None:
    """Check that all slices share one pixel grid and one axial orientation.

    Raises:
        DicomSeriesError: they differ; the message names two of the files.
    """
    first = files[0]
    for name, tolerance in (
        ("Rows", 0.0), ("Columns", 0.0), ("PixelSpacing", 1e-4), ("ImageOrientationPatient", DIRECTION_TOLERANCE),
    ):  # fmt: skip
        reference = _numbers(first, name)
        for file in files[1:]:
            if np.abs(_numbers(file, name) - reference).max() > tolerance:
                raise file.refused(
                    f"{name} differs within the series: {printable(first.header[name].value)} in {first.name}, "
                    f"{printable(file.header[name].value)} in {file.name}; put slices of one grid and orientation in a "
                    "folder"
                )
    rows, columns = orientation(first.header)
    if abs(rows @ rows - 1) > DIRECTION_TOLERANCE or abs(columns @ columns - 1) > DIRECTION_TOLERANCE:
        raise first.refused("ImageOrientationPatient does not hold unit vectors: the header is damaged")
    if abs(rows @ columns) > DIRECTION_TOLERANCE:
        raise first.refused("rows and columns are not perpendicular: the header is damaged")
    normal = np.cross(rows, columns)
    if abs(normal[2]) < MIN_AXIAL:
        raise first.refused(
            f"the slices are not axial (normal {np.round(normal, 3).tolist()} in the patient's axes); a projection "
            "model of the scanner needs axial slices"
        )


def check_positions(files: Sequence[DicomFile], *, allow_gaps: bool = False) -> None:
    """Check that slices, already sorted along their normal, are evenly spaced and on one straight line.

    The line need not be perpendicular to the slices: a tilted gantry shears them, and they are reconstructed one by
    one. Positions may jitter by some percent of their distance.

    Args:
        files: the slices in order.
        allow_gaps: accept missing slices and unequal distances.

    Raises:
        DicomSeriesError: two slices at one place, a missing slice, unequal distances, or sideways shifts.
    """
    if len(files) < 2:
        return
    along = positions_along_normal(files)
    steps = np.diff(along)
    nominal = float(statistics.median_low(steps.tolist()))
    for n, step in enumerate(steps):
        if step < 0.01 * max(nominal, 0.1):
            raise files[n + 1].refused(
                f"two slices lie at the same place ({along[n]:.2f} mm): {files[n].name} and {files[n + 1].name}. The "
                "series holds more than one scan phase or reconstruction; keep one of them"
            )
    _check_straight(files, along)
    if allow_gaps:
        return
    for n, step in enumerate(steps):
        if abs(step - nominal) <= SPACING_TOLERANCE * nominal:
            continue
        missing = round(step / nominal) - 1
        where = f"between {files[n].name} at {along[n]:.2f} mm and {files[n + 1].name} at {along[n + 1]:.2f} mm"
        if missing >= 1 and abs(step / nominal - missing - 1) <= _ROUNDING * (missing + 1):
            raise files[n + 1].refused(
                f"{missing} slice(s) missing {where} (the others are {nominal:.3g} mm apart); add them, or pass "
                "allow_gaps=True (--allow-gaps) to take the slices that are there"
            )
        raise files[n + 1].refused(
            f"slices are not equally spaced: {step:.3f} mm {where}, elsewhere {nominal:.3f} mm; choose an evenly "
            "spaced part, or pass allow_gaps=True (--allow-gaps) to reconstruct slice by slice"
        )
    off, where_off = _off_grid(along)
    if off > GRID_TOLERANCE * nominal:
        raise files[where_off].refused(
            f"slices are not equally spaced: {files[where_off].name} lies {off:.3f} mm from an even grid of "
            f"{nominal:.3f} mm; pass allow_gaps=True (--allow-gaps) to reconstruct slice by slice"
        )


def position_notes(files: Sequence[DicomFile]) -> list[str]:
    """What is unusual about the places of sorted slices: a tilted gantry, jitter, gaps."""
    if len(files) < 2:
        return []
    notes = []
    along = positions_along_normal(files)
    if is_tilted(files):
        notes.append(f"the gantry is tilted by {_tilt(files):.1f} degrees; every slice keeps its own position")
    off, _ = _off_grid(along)
    nominal = float(statistics.median_low(np.diff(along).tolist()))
    if off > GRID_TOLERANCE * nominal:
        notes.append(
            f"the slices are not equally spaced (up to {off:.3g} mm from an even grid): DICOM keeps the position of "
            "each slice, NIfTI only their mean distance"
        )
    elif off > _ROUNDING * nominal:
        notes.append(f"the positions of the slices jitter by up to {off:.2g} mm")
    return notes


def is_tilted(files: Sequence[DicomFile]) -> bool:
    """Whether sorted slices are sheared against their normal by more than rounding: half a pixel from end to end."""
    return _drift(files)[0] > 0.5 * float(min(files[0].header.PixelSpacing))


def _drift(files: Sequence[DicomFile]) -> tuple[float, float]:
    """How far the last slice lies from the first sideways and along the normal, mm."""
    normal = slice_normal(files[0].header)
    between = _numbers(files[-1], "ImagePositionPatient") - _numbers(files[0], "ImagePositionPatient")
    along = float(between @ normal)
    return float(np.linalg.norm(between - along * normal)), along


def _tilt(files: Sequence[DicomFile]) -> float:
    return math.degrees(math.atan2(*_drift(files)))


def _off_grid(along: NDArray[np.float64]) -> tuple[float, int]:
    """Largest distance of a slice from the even grid through the first and the last, and its index."""
    off = np.abs(along - np.linspace(along[0], along[-1], len(along)))
    worst = int(off.argmax())
    return float(off[worst]), worst


def _check_straight(files: Sequence[DicomFile], along: NDArray[np.float64]) -> None:
    normal = slice_normal(files[0].header)
    origins = np.array([_numbers(f, "ImagePositionPatient") for f in files])
    drift = origins - origins[0] - np.outer(along - along[0], normal)
    sheared = drift - np.outer((along - along[0]) / (along[-1] - along[0]), drift[-1])
    off = np.minimum(np.linalg.norm(drift, axis=1), np.linalg.norm(sheared, axis=1))
    pixel = float(min(files[0].header.PixelSpacing))
    worst = int(off.argmax())
    if _tilt(files) > MOST_TILT or off[worst] > 0.5 * pixel:
        sideways = np.linalg.norm(drift, axis=1)
        worst = int(sideways.argmax())
        raise files[worst].refused(
            f"slices are shifted sideways by up to {sideways[worst]:.1f} mm ({files[worst].name}); the series mixes "
            "two reconstructions: keep one of them"
        )


def orientation(header: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors along a row (growing column index) and along a column, in patient axes (LPS)."""
    values = np.asarray(header.ImageOrientationPatient, float)
    return values[:3], values[3:]


def slice_normal(header: Dataset) -> NDArray[np.float64]:
    """Unit normal of a slice: row direction x column direction (LPS)."""
    normal: NDArray[np.float64] = np.cross(*orientation(header))
    return normal


def positions_along_normal(files: Sequence[DicomFile]) -> NDArray[np.float64]:
    """(Z,) ImagePositionPatient projected on the slice normal, mm."""
    normal = slice_normal(files[0].header)
    return np.array([_numbers(f, "ImagePositionPatient") @ normal for f in files])


def _numbers(file: DicomFile, name: str) -> NDArray[np.float64]:
    value: Any = file.header[name].value
    return np.atleast_1d(np.asarray(value, float))
