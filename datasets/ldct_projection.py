"""TCIA LDCT-and-Projection-data: clinical helical raw data in DICOM-CT-PD.

Data: Moen et al. (2021), Medical Physics 48, 902, doi:10.1002/mp.14594. Collection: doi:10.7937/9NPB-2637. Format: Chen
et al. (2015), Medical Physics 42, 6964, doi:10.1118/1.4935406. One DICOM file holds one projection: 16-bit post-log
line integrals with their own rescale slope, and the geometry in private attributes of the groups 7029 to 7041.

**Not verified on a real file**: none was available. Public readers agree on these attributes. Two things are uncertain
and left to the caller. ``reverse_rows`` sets the order of the detector rows. ``swap_focal_shifts`` says which
attribute, 7033,100B or 7033,100C, holds the angular shift of a flying focal spot and which the axial one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from torch import Tensor

from deft_ct.io.dicom_stream import quiet_pydicom

COLUMN_SPACING = (0x7029, 0x1002)
ROW_SPACING = (0x7029, 0x1006)
DETECTOR_SHAPE = (0x7029, 0x100B)
DETECTOR_ROWS = (0x7029, 0x1010)
DETECTOR_COLUMNS = (0x7029, 0x1011)
FOCAL_ANGLE = (0x7031, 0x1001)
FOCAL_AXIAL = (0x7031, 0x1002)
FOCAL_RADIUS = (0x7031, 0x1003)
SOURCE_TO_DETECTOR = (0x7031, 0x1031)
CENTRAL_ELEMENT = (0x7031, 0x1033)
SHIFT_B = (0x7033, 0x100B)
SHIFT_C = (0x7033, 0x100C)
SHIFT_RADIAL = (0x7033, 0x100D)
FLYING_FOCAL_SPOT = (0x7033, 0x100E)
PHOTON_STATISTICS = (0x7033, 0x1065)
WATER_ATTENUATION = (0x7041, 0x1001)

_FORMATS = {"FL": "f", "US": "H"}


@dataclass(frozen=True, eq=False)
class HelicalProjections:
    """A helical scan.

    Attributes:
        projections: (views, rows, columns) float32 line integrals, dimensionless; rows along the table.
        angles: (views,) angular position of the detector's focal centre, radians, unwrapped; may decrease.
        z_mm: (views,) its position along the table; may decrease.
        radius_mm: (views,) its distance from the rotation axis.
        focal_shifts: (views, 3) shift of the source: angular in radians, axial and radial in mm.
        source_to_detector_mm: radius of the cylindrical detector about the focal centre.
        column_mm: width of a detector column, along the arc.
        row_mm: height of a detector row.
        central_element: (column, row) that the central ray meets, counted from 1 as in the file.
        mu_water: attenuation of water as stored, 1/mm; None where the file has none.
        photon_statistics: (views, columns) as stored (inverse noise variance), or None.
        detector_shape: as stored, "CYLINDRICAL" for clinical scanners.
        flying_focal_spot: as stored: "FFSNONE", "FFSZ", "FFSXY" or "FFSXYZ".
        instance_numbers: (views,) InstanceNumber of each file.
    """

    projections: Tensor
    angles: NDArray[np.float64]
    z_mm: NDArray[np.float64]
    radius_mm: NDArray[np.float64]
    focal_shifts: NDArray[np.float64]
    source_to_detector_mm: float
    column_mm: float
    row_mm: float
    central_element: tuple[float, float]
    mu_water: float | None
    photon_statistics: NDArray[np.float32] | None
    detector_shape: str
    flying_focal_spot: str
    instance_numbers: NDArray[np.int64]

    @property
    def turns(self) -> float:
        """Number of rotations that the scan covers."""
        return float(abs(self.angles[-1] - self.angles[0]) / (2 * np.pi))

    @property
    def table_feed_mm(self) -> float:
        """Table movement per rotation, from the slope of z over the angle (the files do not store it); signed.

        Raises:
            ValueError: a single view has none.
        """
        if len(self.angles) < 2:
            raise ValueError("the table feed needs two views or more")
        slope = np.polyfit(self.angles, self.z_mm, 1)[0]
        return float(slope * np.sign(self.angles[-1] - self.angles[0]) * 2 * np.pi)


def find_projection_series(root: str | Path, patient: str, kind: str = "full dose projections") -> Path:
    """The folder of a patient's series; names are matched without regard to case.

    Folders are called ``L004/<date and study>/1.000000-Full dose projections-24362`` and the like.

    Args:
        root: folder that holds the patients' folders, at any depth.
        patient: for example "L004".
        kind: part of the folder's name: "full dose projections", "low dose projections", ...

    Raises:
        FileNotFoundError: there is none; the message lists the patient's folders.
        ValueError: there are several.
    """
    top = Path(root)
    mine = sorted(f for f in top.rglob("*") if f.is_dir() and patient in f.relative_to(top).parts[:-1])
    found = [f for f in mine if kind.lower() in f.name.lower()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise FileNotFoundError(
            f"{root} has no {kind!r} of {patient}; its folders are {[f.name for f in mine] or 'none'}"
        )
    raise ValueError(
        f"{len(found)} folders of {patient} are {kind!r}: {[str(f) for f in found]}; name the folder itself"
    )


def read_projections(
    folder: str | Path, *, every: int = 1, reverse_rows: bool = True, swap_focal_shifts: bool = False
) -> HelicalProjections:
    """Read one series of projections.

    Args:
        folder: the folder of its files.
        every: keep every k-th projection, in order of InstanceNumber; the kept ones must be less than half a turn
            apart.
        reverse_rows: turn the rows of the detector round, as the public readers do.
        swap_focal_shifts: take (7033,100B) for the axial and (7033,100C) for the angular shift.

    Raises:
        FileNotFoundError: ``folder`` does not exist.
        ValueError: no DICOM files, files without the attributes of the format, missing or doubled projections,
            detectors that differ, or pixel data that is cut off.
    """
    source = Path(folder)
    if not source.is_dir():
        raise FileNotFoundError(f"no such folder: {source}")
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    paths = _ordered(source)
    views = [_read_view(path) for path in paths[::every]]
    first = views[0]
    for name in ("shape", "source_to_detector", "column_mm", "row_mm", "central", "detector_shape"):
        if any(getattr(v, name) != getattr(first, name) for v in views):
            raise ValueError(
                f"{source}: {name} differs between projections: {sorted({str(getattr(v, name)) for v in views})}"
            )
    angles = np.unwrap([v.angle for v in views])
    numbers = np.array([v.number for v in views])
    _check_complete(numbers, every, source)
    shifts = np.array([v.shifts for v in views])
    if swap_focal_shifts:
        shifts = shifts[:, [1, 0, 2]]
    statistics = [v.statistics for v in views]
    stack = np.stack([v.pixels[::-1] if reverse_rows else v.pixels for v in views])
    return HelicalProjections(
        projections=torch.from_numpy(np.ascontiguousarray(stack)),
        angles=angles,
        z_mm=np.array([v.z for v in views]),
        radius_mm=np.array([v.radius for v in views]),
        focal_shifts=shifts,
        source_to_detector_mm=first.source_to_detector,
        column_mm=first.column_mm,
        row_mm=first.row_mm,
        central_element=first.central,
        mu_water=first.mu_water,
        photon_statistics=np.stack([s for s in statistics if s is not None]) if statistics[0] is not None else None,
        detector_shape=first.detector_shape,
        flying_focal_spot=first.flying_focal_spot,
        instance_numbers=numbers,
    )


@dataclass(frozen=True, eq=False)
class _View:
    number: int
    pixels: NDArray[np.float32]
    shape: tuple[int, int]
    angle: float
    z: float
    radius: float
    shifts: tuple[float, float, float]
    source_to_detector: float
    column_mm: float
    row_mm: float
    central: tuple[float, float]
    mu_water: float | None
    statistics: NDArray[np.float32] | None
    detector_shape: str
    flying_focal_spot: str


def _ordered(source: Path) -> list[Path]:
    numbered = []
    for path in sorted(p for p in source.iterdir() if p.is_file()):
        try:
            with quiet_pydicom():
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["InstanceNumber"])
        except InvalidDicomError:
            continue
        if header.get("InstanceNumber") is None:
            raise ValueError(f"{path.name} has no InstanceNumber: the order of the projections is unknown")
        numbered.append((int(header.InstanceNumber), path))
    if not numbered:
        raise ValueError(f"{source} holds no DICOM files; name the folder of one series of projections")
    return [path for _, path in sorted(numbered)]


def _read_view(path: Path) -> _View:
    with quiet_pydicom():
        dataset = pydicom.dcmread(path)
    if DETECTOR_ROWS not in dataset or FOCAL_ANGLE not in dataset:
        raise ValueError(
            f"{path.name} is not DICOM-CT-PD: it lacks the detector attributes of group 7029 or 7031. Some head scans "
            "have no geometry. Read image series with deft_ct.io.read_dicom_series"
        )
    rows, columns = int(_number(dataset, DETECTOR_ROWS, "US")), int(_number(dataset, DETECTOR_COLUMNS, "US"))
    water = _text(dataset, WATER_ATTENUATION)
    statistics = _numbers(dataset, PHOTON_STATISTICS, "FL") if PHOTON_STATISTICS in dataset else None
    return _View(
        number=int(dataset.InstanceNumber),
        pixels=_line_integrals(dataset, rows, columns, path.name),
        shape=(rows, columns),
        angle=_number(dataset, FOCAL_ANGLE, "FL"),
        z=_number(dataset, FOCAL_AXIAL, "FL"),
        radius=_number(dataset, FOCAL_RADIUS, "FL"),
        shifts=(_optional(dataset, SHIFT_B), _optional(dataset, SHIFT_C), _optional(dataset, SHIFT_RADIAL)),
        source_to_detector=_number(dataset, SOURCE_TO_DETECTOR, "FL"),
        column_mm=_number(dataset, COLUMN_SPACING, "FL"),
        row_mm=_number(dataset, ROW_SPACING, "FL"),
        central=_pair(_numbers(dataset, CENTRAL_ELEMENT, "FL"), path.name),
        mu_water=float(water) if water else None,
        statistics=None if statistics is None else np.asarray(statistics, np.float32),
        detector_shape=_text(dataset, DETECTOR_SHAPE),
        flying_focal_spot=_text(dataset, FLYING_FOCAL_SPOT),
    )


def _line_integrals(dataset: FileDataset, rows: int, columns: int, name: str) -> NDArray[np.float32]:
    """(rows, columns) float32; the image may be stored either way round, the detector attributes tell which."""
    try:
        stored = dataset.pixel_array
    except (AttributeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: the pixel data cannot be read ({error}); copy the file again") from error
    if stored.shape == (columns, rows) and rows != columns:
        stored = stored.T
    elif stored.shape != (rows, columns):
        raise ValueError(f"{name}: image of shape {stored.shape} for a detector of {rows} rows and {columns} columns")
    slope, intercept = np.float32(dataset.RescaleSlope), np.float32(dataset.RescaleIntercept)
    values: NDArray[np.float32] = stored.astype(np.float32) * slope + intercept
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds line integrals that are not finite")
    return values


def _check_complete(numbers: NDArray[np.int64], every: int, source: Path) -> None:
    steps = np.diff(numbers)
    if (steps == 0).any():
        raise ValueError(
            f"{source}: InstanceNumber {numbers[1:][steps == 0][0]} occurs twice; keep one series in a folder"
        )
    if (steps != every).any():
        place = int(np.flatnonzero(steps != every)[0])
        raise ValueError(
            f"{source}: projections are missing between InstanceNumber {numbers[place]} and {numbers[place + 1]}; "
            "download the series again"
        )


def _numbers(dataset: Dataset, tag: tuple[int, int], vr: str) -> list[float]:
    """Values of a private attribute, also where its VR is unknown (implicit VR) and it is read as bytes."""
    if tag not in dataset:
        raise ValueError(f"attribute ({tag[0]:04X},{tag[1]:04X}) is missing: the file is not complete DICOM-CT-PD")
    value: Any = dataset[tag].value
    if isinstance(value, bytes):
        code = _FORMATS[vr]
        return [float(v) for v in struct.unpack(f"<{len(value) // struct.calcsize(code)}{code}", value)]
    return [float(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else [float(value)]


def _number(dataset: Dataset, tag: tuple[int, int], vr: str) -> float:
    return _numbers(dataset, tag, vr)[0]


def _optional(dataset: Dataset, tag: tuple[int, int]) -> float:
    return _number(dataset, tag, "FL") if tag in dataset else 0.0


def _pair(values: list[float], name: str) -> tuple[float, float]:
    if len(values) != 2:
        raise ValueError(f"{name}: DetectorCentralElement must hold two numbers, got {values}")
    return values[0], values[1]


def _text(dataset: Dataset, tag: tuple[int, int]) -> str:
    if tag not in dataset:
        return ""
    value: Any = dataset[tag].value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ")
