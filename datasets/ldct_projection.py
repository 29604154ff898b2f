"""TCIA LDCT-and-Projection-data: clinical helical raw data in DICOM-CT-PD.

Data: Moen et al. (2021), Medical Physics 48, 902, doi:10.1002/mp.14594. Collection: doi:10.7937/9NPB-2637. Format: Chen
et al. (2015), Medical Physics 42, 6964, doi:10.1118/1.4935406. One DICOM file holds one projection: 16-bit post-log
line integrals with their own rescale slope, and the geometry in private attributes of the groups 7029 to 7041.

**Not verified on a real file**: none was available. Public readers agree on these attributes. Two things are uncertain
and left to the caller. ``reverse_rows`` sets the order of the detector rows; readers that turn them round also turn the
table position round. The data can tell: see ``operators.ct.helix_orientation``. ``swap_focal_shifts`` says which
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
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from torch import Tensor

from deft_ct.io.dicom_stream import quiet_pydicom
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.operators.memory import check_memory
from deft_ct.runtime.progress import progress_bar

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
        central_element: (column, row) of ``projections`` that the central ray meets, counted from 1; that of the file,
            or its mirror image where the rows were turned round.
        mu_water: attenuation of water as stored, 1/mm; None where the file has none.
        photon_statistics: (views, columns) as stored (inverse noise variance), or None.
        detector_shape: as stored, "CYLINDRICAL" for clinical scanners.
        flying_focal_spot: as stored: "FFSNONE", "FFSZ", "FFSXY" or "FFSXYZ".
        instance_numbers: (views,) InstanceNumber of each file.
        sop_uids: SOPInstanceUID of each file.
        header: the first file without its pixels and private attributes.
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
    sop_uids: tuple[str, ...]
    header: Dataset

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
    folder: str | Path,
    *,
    every: int = 1,
    reverse_rows: bool = True,
    swap_focal_shifts: bool = False,
    progress: bool = False,
) -> HelicalProjections:
    """Read one series of projections.

    Args:
        folder: the folder of its files.
        every: keep every k-th projection, in order of InstanceNumber; the kept ones must be less than half a turn
            apart.
        reverse_rows: turn the rows of the detector round, as the public readers do.
        swap_focal_shifts: take (7033,100B) for the axial and (7033,100C) for the angular shift.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: ``folder`` does not exist.
        ReadError: no DICOM files, a damaged or compressed one, files without the attributes of the format or with
            values that no scanner has, missing or doubled projections, or detectors that differ. It names the file.
        ValueError: ``every`` < 1, or more projections than fit into memory.
    """
    source = Path(folder)
    if not source.is_dir():
        raise FileNotFoundError(f"no such folder: {source}")
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    paths = _ordered(source)
    stack, views = _read_views(paths[::every], reverse_rows, progress)
    first = views[0]
    for name in ("shape", "source_to_detector", "column_mm", "row_mm", "central", "detector_shape"):
        if any(getattr(v, name) != getattr(first, name) for v in views):
            found = sorted({str(getattr(v, name)) for v in views})
            raise ReadError(source, f"{name} differs between projections: {found[:5]}")
    angles = np.unwrap([v.angle for v in views])
    numbers = np.array([v.number for v in views])
    _check_complete(numbers, every, source)
    shifts = np.array([v.shifts for v in views])
    if swap_focal_shifts:
        shifts = shifts[:, [1, 0, 2]]
    statistics = [v.statistics for v in views]
    if len({s is None for s in statistics}) > 1:
        raise ReadError(source, "some projections have photon statistics and some have not")
    column, row = first.central
    return HelicalProjections(
        projections=torch.from_numpy(stack),
        angles=angles,
        z_mm=np.array([v.z for v in views]),
        radius_mm=np.array([v.radius for v in views]),
        focal_shifts=shifts,
        source_to_detector_mm=first.source_to_detector,
        column_mm=first.column_mm,
        row_mm=first.row_mm,
        central_element=(column, first.shape[0] + 1 - row) if reverse_rows else first.central,
        mu_water=first.mu_water,
        photon_statistics=np.stack([s for s in statistics if s is not None]) if statistics[0] is not None else None,
        detector_shape=first.detector_shape,
        flying_focal_spot=first.flying_focal_spot,
        instance_numbers=numbers,
        sop_uids=tuple(v.uid for v in views),
        header=_public_header(paths[0]),
    )


def is_projection_folder(folder: str | Path) -> bool:
    """Whether the first DICOM file of a folder holds a projection, not an image; False for anything else."""
    source = Path(folder)
    if not source.is_dir():
        return False
    for path in sorted(p for p in source.iterdir() if p.is_file()):
        try:
            with quiet_pydicom():
                _check_encoding(path)
                header = pydicom.dcmread(path, stop_before_pixels=True)
        except Exception:  # noqa: BLE001  # not DICOM, or damaged in any way: what reads the folder says so
            continue
        return DETECTOR_ROWS in header and FOCAL_ANGLE in header
    return False


def _read_views(paths: list[Path], reverse: bool, progress: bool) -> tuple[NDArray[np.float32], list[_View]]:
    """Line integrals ``(views, rows, columns)`` and the rest of every file, without a second copy of the pixels.

    The columns vary slowest in memory, because rebinning takes whole columns.
    """
    first, _ = _read_view(paths[0])
    rows, columns = first.shape
    check_memory(
        4 * len(paths) * rows * columns, f"a scan of {len(paths)} projections of {rows} x {columns} elements",
        "read fewer projections (every=...), or a part of the series",
    )  # fmt: skip
    stack = np.empty((len(paths), columns, rows), np.float32)
    views = []
    with progress_bar("reading", len(paths), enabled=progress) as tick:
        for place, path in zip(stack, paths, strict=True):
            view, pixels = _read_view(path)
            if view.shape != first.shape:
                raise ReadError(path, f"shape differs between projections: {first.shape} and {view.shape}")
            place[:] = pixels[::-1].T if reverse else pixels.T
            views.append(view)
            tick()
    return stack.transpose(0, 2, 1), views


def _public_header(path: Path) -> Dataset:
    with quiet_pydicom():
        header = pydicom.dcmread(path, stop_before_pixels=True)
    header.remove_private_tags()
    return header


@dataclass(frozen=True, eq=False)
class _View:
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


def _ordered(source: Path) -> list[Path]:
    numbered = []
    for path in sorted(p for p in source.iterdir() if p.is_file()):
        try:
            with quiet_pydicom():
                _check_encoding(path)
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["InstanceNumber"])
                number = None if header.get("InstanceNumber") is None else int(header.InstanceNumber)
        except InvalidDicomError:
            continue
        except ReadError:
            raise
        except Exception as error:  # pydicom raises types of every kind on damaged files
            raise _damaged(path, error) from error
        if number is None:
            raise ReadError(path, "has no InstanceNumber: the order of the projections is unknown")
        numbered.append((number, path))
    if not numbered:
        raise ReadError(source, "holds no DICOM files; name the folder of one series of projections")
    return [path for _, path in sorted(numbered)]


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


def _read_view(path: Path) -> tuple[_View, NDArray[np.float32]]:
    try:
        with quiet_pydicom(), np.errstate(all="ignore"):  # values that are not finite are looked for
            return _view(pydicom.dcmread(path), path)
    except ReadError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _view(dataset: FileDataset, path: Path) -> tuple[_View, NDArray[np.float32]]:
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
    view = _View(
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


def _check_complete(numbers: NDArray[np.int64], every: int, source: Path) -> None:
    steps = np.diff(numbers)
    if (steps == 0).any():
        raise ReadError(
            source, f"InstanceNumber {numbers[1:][steps == 0][0]} occurs twice; keep one series in a folder"
        )
    if (steps != every).any():
        place = int(np.flatnonzero(steps != every)[0])
        raise ReadError(
            source,
            f"projections are missing between InstanceNumber {numbers[place]} and {numbers[place + 1]}; "
            "download the series again",
        )


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
