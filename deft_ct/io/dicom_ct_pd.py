"""Single files of DICOM-CT-PD: a projection with its own rescale slope and the geometry in private attributes.

Format: Chen et al. (2015), Medical Physics 42, 6964, doi:10.1118/1.4935406. Not verified on a real file, see
:mod:`deft_ct.datasets.ldct_projection`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from deft_ct.io.dicom_stream import quiet_pydicom
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits

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
_PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_MOST_ELEMENTS = 100_000
_FARTHEST_MM = 1e5


@dataclass(frozen=True, eq=False)
class Projection:
    """One projection without its pixels.

    Attributes:
        number: InstanceNumber.
        uid: SOPInstanceUID; empty if there is none.
        shape: detector (rows, columns).
        angle: angular position of the detector's focal centre, radians, as stored.
        z: its position along the table, mm.
        radius: its distance from the rotation axis, mm.
        shifts: of the source by (7033,100B), (7033,100C) and (7033,100D).
        source_to_detector: mm.
        column_mm: width of a column.
        row_mm: height of a row.
        central: (column, row) that the central ray meets, counted from 1.
        mu_water: attenuation of water, 1/mm; None where the file has none.
        statistics: (columns,) inverse noise variance, or None.
        detector_shape: as stored.
        flying_focal_spot: as stored.
    """

    number: int
    uid: str
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


def is_projection(path: Path) -> bool | None:
    """Whether a file holds a projection; None if it is not readable DICOM."""
    try:
        header = projection_header(path)
    except Exception:  # noqa: BLE001  # not DICOM, or damaged in any way: what reads the file says so
        return None
    return DETECTOR_ROWS in header and FOCAL_ANGLE in header


def instance_number(path: Path) -> int | None:
    """InstanceNumber of a DICOM file; None for a file that is not DICOM.

    Raises:
        ReadError: it is damaged, compressed or has no InstanceNumber.
    """
    try:
        with quiet_pydicom():
            _check_encoding(path)
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["InstanceNumber"])
            number = None if header.get("InstanceNumber") is None else int(header.InstanceNumber)
    except InvalidDicomError:
        return None
    except ReadError:
        raise
    except Exception as error:  # pydicom raises types of every kind on damaged files
        raise _damaged(path, error) from error
    if number is None:
        raise ReadError(path, "has no InstanceNumber: the order of the projections is unknown")
    return number


def projection_header(path: Path) -> Dataset:
    """The attributes of a file without its pixels; raises what pydicom raises, or ReadError if it is compressed."""
    with quiet_pydicom():
        _check_encoding(path)
        return pydicom.dcmread(path, stop_before_pixels=True)


def public_header(path: Path) -> Dataset:
    """The attributes of a file without its pixels and without those of the vendor.

    Raises:
        ReadError: the file is damaged or compressed.
    """
    try:
        header = projection_header(path)
        with quiet_pydicom():
            header.remove_private_tags()  # decodes every element, and raises whatever a damaged one makes of it
    except ReadError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error
    return header


def read_projection(path: Path) -> tuple[Projection, NDArray[np.float32]]:
    """A projection and its (rows, columns) line integrals.

    Raises:
        ReadError: the file is damaged, not DICOM-CT-PD, or has values that no scanner has.
    """
    try:
        with quiet_pydicom(), np.errstate(all="ignore"):  # values that are not finite are looked for
            return _view(pydicom.dcmread(path), path)
    except ReadError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _view(dataset: FileDataset, path: Path) -> tuple[Projection, NDArray[np.float32]]:
    if DETECTOR_ROWS not in dataset or FOCAL_ANGLE not in dataset:
        raise ReadError(
            path,
            "is not DICOM-CT-PD: it lacks the detector attributes of group 7029 or 7031. Some head scans have no "
            "geometry. Read image series with deft_ct.io.read_dicom_series",
        )
    values = _Attributes(dataset, path)
    limits = current_limits()
    rows, columns = int(values.number(DETECTOR_ROWS, "US")), int(values.number(DETECTOR_COLUMNS, "US"))
    if not (1 <= rows <= _MOST_ELEMENTS and 1 <= columns <= _MOST_ELEMENTS):
        raise ReadError(path, f"declares a detector of {rows} rows and {columns} columns")
    statistics = values.numbers(PHOTON_STATISTICS, "FL") if PHOTON_STATISTICS in dataset else None
    if statistics is not None and len(statistics) != columns:
        raise ReadError(path, f"has {len(statistics)} photon statistics for {columns} columns")
    central = values.numbers(CENTRAL_ELEMENT, "FL")
    if len(central) != 2:
        raise ReadError(path, f"DetectorCentralElement must hold two numbers, got {central[:5]}")
    pixels = _line_integrals(dataset, rows, columns, path)
    view = Projection(
        number=int(dataset.InstanceNumber),
        uid=str(dataset.get("SOPInstanceUID", "")),
        shape=(rows, columns),
        angle=values.number(FOCAL_ANGLE, "FL"),
        z=values.number(FOCAL_AXIAL, "FL"),
        radius=values.distance(FOCAL_RADIUS),
        shifts=(values.optional(SHIFT_B), values.optional(SHIFT_C), values.optional(SHIFT_RADIAL)),
        source_to_detector=values.distance(SOURCE_TO_DETECTOR),
        column_mm=limits.check_spacing(path, values.number(COLUMN_SPACING, "FL"), what="the width of a column"),
        row_mm=limits.check_spacing(path, values.number(ROW_SPACING, "FL"), what="the height of a row"),
        central=(central[0], central[1]),
        mu_water=values.water(),
        statistics=None if statistics is None else np.asarray(statistics, np.float32),
        detector_shape=values.text(DETECTOR_SHAPE),
        flying_focal_spot=values.text(FLYING_FOCAL_SPOT),
    )
    return view, pixels


def _line_integrals(dataset: FileDataset, rows: int, columns: int, path: Path) -> NDArray[np.float32]:
    """(rows, columns) float32; the image may be stored either way round, the detector attributes tell which."""
    declared = (int(dataset.Rows), int(dataset.Columns))
    if sorted(declared) != sorted((rows, columns)) or int(dataset.get("NumberOfFrames", None) or 1) != 1:
        raise ReadError(path, f"image of shape {declared} for a detector of {rows} rows and {columns} columns")
    try:
        stored = dataset.pixel_array
    except Exception as error:
        raise ReadError(path, f"the pixel data cannot be read ({str(error)[:200]}); copy the file again") from error
    if stored.shape == (columns, rows) and rows != columns:
        stored = stored.T
    elif stored.shape != (rows, columns):
        raise ReadError(path, f"image of shape {stored.shape} for a detector of {rows} rows and {columns} columns")
    slope, intercept = np.float32(dataset.RescaleSlope), np.float32(dataset.RescaleIntercept)
    values: NDArray[np.float32] = stored.astype(np.float32) * slope + intercept
    if not np.isfinite(values).all():
        raise ReadError(path, "holds line integrals that are not finite")
    return values


def _check_encoding(path: Path) -> None:
    """Refuse what would have to be inflated: the format is not compressed, and damage could take all memory."""
    limits, size = current_limits(), path.stat().st_size
    if size > limits.array_bytes:
        raise ReadError(path, f"has {size} bytes, more than a projection can have")
    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax is not None and syntax not in _PLAIN:
        raise ReadError(
            path, f"is compressed ({syntax.name[:80]}), which DICOM-CT-PD is not; decompress the series first"
        )


def _damaged(path: Path, error: Exception) -> ReadError:
    return ReadError(path, f"is damaged DICOM ({str(error)[:200] or type(error).__name__}); copy or download it again")


@dataclass(frozen=True, eq=False)
class _Attributes:
    """The private attributes of one file, also where their VR is unknown (implicit VR) and they are read as bytes."""

    dataset: Dataset
    path: Path

    def numbers(self, tag: tuple[int, int], vr: str) -> list[float]:
        name = f"attribute ({tag[0]:04X},{tag[1]:04X})"
        if tag not in self.dataset:
            raise ReadError(self.path, f"{name} is missing: the file is not complete DICOM-CT-PD")
        value: Any = self.dataset[tag].value
        if isinstance(value, bytes):
            code = _FORMATS[vr]
            found = [float(v) for v in struct.unpack(f"<{len(value) // struct.calcsize(code)}{code}", value)]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found = [float(v) for v in value]
        else:
            found = [float(value)]
        if not found or not np.isfinite(found).all():
            raise ReadError(self.path, f"{name} must hold finite numbers, got {found[:5]}")
        return found

    def number(self, tag: tuple[int, int], vr: str) -> float:
        return self.numbers(tag, vr)[0]

    def optional(self, tag: tuple[int, int]) -> float:
        return self.number(tag, "FL") if tag in self.dataset else 0.0

    def distance(self, tag: tuple[int, int]) -> float:
        found = self.number(tag, "FL")
        if not 1 <= found <= _FARTHEST_MM:
            raise ReadError(
                self.path, f"attribute ({tag[0]:04X},{tag[1]:04X}) is a distance of {found:g} mm; no scanner has it"
            )
        return found

    def water(self) -> float | None:
        text = self.text(WATER_ATTENUATION)
        if text and not 0 < float(text) < 1:
            raise ReadError(self.path, f"the attenuation of water is {text[:20]} / mm")
        return float(text) if text else None

    def text(self, tag: tuple[int, int]) -> str:
        if tag not in self.dataset:
            return ""
        value: Any = self.dataset[tag].value
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
        return text.strip("\0 ")
