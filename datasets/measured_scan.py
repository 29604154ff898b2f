"""A file of measured projections as line integrals with their geometry, whatever its layout.

Challenge files of HTC 2022 and NeXus files of CIL say all of their scan. Data exchange says where its arrays are. All
else comes from a geometry file, see :mod:`deft_ct.datasets.scan_description`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.datasets.data_exchange import estimate_center
from deft_ct.datasets.htc2022 import STRUCTS, read_htc2022
from deft_ct.datasets.nexus_scan import is_nexus, read_nexus
from deft_ct.datasets.projection_arrays import DATA_EXCHANGE, HDF5_SUFFIXES, LineIntegrals, read_line_integrals
from deft_ct.datasets.scan_description import Axis, Centre, ScanDescription
from deft_ct.io.errors import ReadError
from deft_ct.io.matlab import read_matlab
from deft_ct.io.sinograms import SINOGRAM_SUFFIXES
from deft_ct.io.untrusted import HDF5File
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, detector_shift

MEASURED_SUFFIXES = tuple(dict.fromkeys((*SINOGRAM_SUFFIXES, *HDF5_SUFFIXES)))

Geometry = ParallelGeometry | FanGeometry


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredScan:
    """Line integrals of some slices or frames of one scan.

    Attributes:
        sinogram: ``(slices, 1, views, detectors)`` float32, dimensionless.
        geometry: of all of them; the image is one pixel, see :func:`with_image`.
        layout: what the file is, in words.
        numbers: of the slices or frames, from 1.
        total: slices or frames in the file.
        axis: ``"slices"``, or ``"frames"`` in time.
        in_mm: whether lengths are millimetres; else they are detector elements.
        slice_mm: distance of the slices, if it is known.
        centered: whether the file, or who called, said where the axis is.
        notes: what was corrected or assumed, in words.
        record: the same in numbers.
    """

    sinogram: Tensor
    geometry: Geometry
    layout: str
    numbers: tuple[int, ...] = (1,)
    total: int = 1
    axis: Axis = "slices"
    in_mm: bool = True
    slice_mm: float | None = None
    centered: bool = True
    notes: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)


def read_measured_scan(
    path: Path, said: ScanDescription | None = None, chosen: tuple[int, int] | None = None
) -> MeasuredScan:
    """Read a file of measured projections.

    Args:
        path: ends in one of :data:`MEASURED_SUFFIXES`.
        said: what the file does not say.
        chosen: first and last slice or frame, from 1; all when None.

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is damaged, of an unknown layout, or does not fit the description.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    known = _own_geometry(path, said, chosen)
    if known is not None:
        return known
    layout, described = _described(path, said)
    arrays = read_line_integrals(path, described, chosen)
    try:
        geometry = _geometry(arrays, described)
    except ValueError as error:
        raise ReadError(path, f"its geometry cannot be used: {error}") from error
    notes = arrays.notes
    if described.detector_mm is None:
        notes += ("the width of a detector element is not known: lengths are in elements, attenuation per element",)
    return MeasuredScan(
        sinogram=torch.from_numpy(arrays.lines)[:, None], geometry=geometry, layout=layout, numbers=arrays.numbers,
        total=arrays.total, axis=arrays.axis, in_mm=described.detector_mm is not None, slice_mm=described.slice_mm,
        centered=described.center is not None, notes=notes, record=arrays.record,
    )  # fmt: skip


def with_center(scan: MeasuredScan, center: Centre) -> tuple[Geometry, float]:
    """The scan with the rotation axis at another detector column.

    Args:
        scan: what was measured.
        center: the column, from 0; ``"middle"`` of the detector; or ``"auto"``. Then the first moments of the
            views give it (:func:`~deft_ct.operators.ct.detector_shift`). Where they do not, two opposite views of
            parallel beams do.

    Returns:
        The geometry and the column.

    Raises:
        ValueError: a column outside the detector, or one that the data do not determine.
    """
    geometry, last = scan.geometry, scan.geometry.detectors - 1
    column = 0.5 * last if center == "middle" else _found_center(scan) if center == "auto" else float(center)
    if not 0 < column < last:
        raise ValueError(f"the centre {column:g} lies outside the detector's columns 0..{last}")
    offset = geometry.axis_offset_mm + (0.5 * last - column) * geometry.detector_mm
    return geometry.replace(detector_offset_mm=offset), column


def axis_column(geometry: Geometry) -> float:
    """The detector column that the rotation axis projects to."""
    shift = (geometry.detector_offset_mm - geometry.axis_offset_mm) / geometry.detector_mm
    return 0.5 * (geometry.detectors - 1) - shift


def with_image(geometry: Geometry, side: int | None = None, width_mm: float | None = None) -> Geometry:
    """The scan of square images.

    Args:
        geometry: the scan.
        side: pixels per side; when None, as many as detector elements lie across the image.
        width_mm: of the image; when None, what the part of the detector that is symmetric about the axis sees.

    Raises:
        ValueError: the axis lies outside the detector, or the source inside the image.
    """
    column, last = axis_column(geometry), geometry.detectors - 1
    reach = min(column, last - column)
    if reach <= 0:
        raise ValueError(f"the axis projects to column {column:.1f}, outside the detector")
    element = geometry.detector_mm
    if isinstance(geometry, FanGeometry):
        element *= geometry.source_to_center_mm / geometry.source_to_detector_mm
    whole = math.floor(2 * reach + 1e-6) + 1 if width_mm is None else max(1, round(width_mm / element))
    pixels = whole if side is None else side
    width = whole * element if width_mm is None else width_mm
    return geometry.replace(image_shape=(pixels, pixels), pixel_mm=width / pixels)


def _own_geometry(path: Path, said: ScanDescription | None, chosen: tuple[int, int] | None) -> MeasuredScan | None:
    """A scan that says all of its geometry; None for others."""
    suffix = path.suffix.lower()
    if suffix == ".mat" and _has_challenge_struct(path):
        _nothing_said(path, said)
        _only_one(path, chosen)
        scan = read_htc2022(path, image_shape=(1, 1))
        kind = "limited angle" if scan.limited else "full scan"
        return MeasuredScan(
            sinogram=scan.sinogram, geometry=_bare(scan.geometry), layout=f"HTC 2022 challenge file, {kind}"
        )
    if suffix in HDF5_SUFFIXES and is_nexus(HDF5File(path, depth=3)):
        _nothing_said(path, said)
        sinogram, geometry = read_nexus(path)
        total = len(sinogram)
        low, high = chosen or (1, total)
        if not 1 <= low <= high <= total:
            raise ReadError(path, f"holds {total} frames, and {low} to {high} were asked for")
        return MeasuredScan(
            sinogram=sinogram[low - 1 : high], geometry=_bare(geometry), layout="NeXus file of CIL",
            numbers=tuple(range(low, high + 1)), total=total, axis="frames" if total > 1 else "slices",
        )  # fmt: skip
    return None


def _has_challenge_struct(path: Path) -> bool:
    try:
        return bool(set(read_matlab(path, STRUCTS)) & set(STRUCTS))
    except ReadError:
        return False  # another MATLAB file, or a damaged one, which the next reader says


def _nothing_said(path: Path, said: ScanDescription | None) -> None:
    if said is not None:
        raise ReadError(path, "says its own geometry: leave out --geometry (the centre: --raw center=...)")


def _only_one(path: Path, chosen: tuple[int, int] | None) -> None:
    if chosen is not None and chosen != (1, 1):
        raise ReadError(path, f"holds one slice, and {chosen[0]} to {chosen[1]} were asked for")


def _bare(geometry: FanGeometry) -> FanGeometry:
    return geometry.replace(image_shape=(1, 1), pixel_mm=1e-6)


def _described(path: Path, said: ScanDescription | None) -> tuple[str, ScanDescription]:
    if path.suffix.lower() in HDF5_SUFFIXES and "exchange/data" in HDF5File(path):
        return "data exchange (HDF5)", DATA_EXCHANGE if said is None else said.over(DATA_EXCHANGE)
    if said is None:
        raise ReadError(
            path, "does not say how it was scanned: describe the beam and the angles in a geometry file, --geometry "
            "FILE.yaml (docs/projections.md has an example)"
        )  # fmt: skip
    return f"{path.suffix.lower().lstrip('.')} file with a geometry file", said


def _geometry(arrays: LineIntegrals, said: ScanDescription) -> Geometry:
    element = said.detector_mm or 1.0
    shared: dict[str, Any] = {
        "image_shape": (1, 1), "pixel_mm": 1e-6 * element, "angles": arrays.angles,
        "detectors": arrays.lines.shape[2], "detector_mm": element,
    }  # fmt: skip
    if said.source_to_center_mm is None or said.source_to_detector_mm is None:
        return ParallelGeometry(**shared)
    return FanGeometry(
        **shared, source_to_center_mm=said.source_to_center_mm, source_to_detector_mm=said.source_to_detector_mm,
        detector=said.detector or "flat",
    )  # fmt: skip


def _found_center(scan: MeasuredScan) -> float:
    geometry = scan.geometry
    shift = detector_shift(scan.sinogram, geometry)
    if shift is not None:
        return axis_column(geometry) - shift
    if isinstance(geometry, FanGeometry):
        raise ValueError(
            "the data do not determine the centre of this fan beam (a full turn of an object that the detector sees "
            "whole does): give the column, center=N, or try align=center"
        )
    try:
        return estimate_center(scan.sinogram, np.asarray(geometry.angle_array))
    except ValueError as error:
        raise ValueError(f"the centre cannot be found: {error}") from error
