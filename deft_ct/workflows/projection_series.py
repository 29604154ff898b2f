"""The volume that a helical scan is reconstructed to, and the DICOM series that it becomes."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DSfloat

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import Volume
from deft_ct.datasets.ldct_geometry import DEFAULT_POSITION, patient_affine
from deft_ct.datasets.ldct_projection import HelicalProjections
from deft_ct.io import Series
from deft_ct.operators.ct.helix import HelicalScan, VolumeGrid

_OF_PIXELS = ("RescaleSlope", "RescaleIntercept", "RescaleType", "BitsAllocated", "BitsStored", "HighBit")


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Which slices are reconstructed.

    Args:
        size: pixels of a side.
        fov_mm: width of a slice; None: what every view covers.
        slice_mm: distance of the slices; None: height of a detector row at the rotation axis.
        z_range: first and last place along the table of the files, mm; None: every slice that is measured from all
            sides.

    Raises:
        ValueError: a value is out of range.
    """

    size: int = 256
    fov_mm: float | None = None
    slice_mm: float | None = None
    z_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ValueError(f"size must be at least 8 pixels, got {self.size}")
        for name in ("fov_mm", "slice_mm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number of mm, got {value}")
        if self.z_range is not None and not -math.inf < self.z_range[0] <= self.z_range[1] < math.inf:
            raise ValueError(f"z_range must be two numbers in mm, the smaller first, got {self.z_range}")

    def grid(self, scan: HelicalScan, source: Path) -> VolumeGrid:
        """The voxels for a scan.

        Raises:
            ValueError: no slice is measured from all sides, or not all of the wanted ones are.
        """
        covered = 2 * scan.reach_mm
        width = covered if self.fov_mm is None else self.fov_mm
        step = scan.collimation_mm / scan.detectors[0] if self.slice_mm is None else self.slice_mm
        low, high = scan.complete_range(min(width, covered) / 2)
        if low > high:
            raise ValueError(
                f"{source}: no slice is measured from all sides: the table moves {np.ptp(scan.z_mm):.4g} mm, and "
                f"{np.ptp(scan.z_mm) + low - high:.4g} mm are needed; read the whole series"
            )
        if self.z_range is not None:
            if self.z_range[0] < low or self.z_range[1] > high:
                raise ValueError(
                    f"slices from {self.z_range[0]:g} to {self.z_range[1]:g} mm are not all measured from all sides: "
                    f"choose them from {low:.5g} to {high:.5g} mm"
                )
            low, high = self.z_range
        travel = float(np.abs(np.diff(scan.z_mm)).min())
        if step <= travel:
            raise ValueError(f"slices {step:g} mm apart are finer than the way of the table from view to view")
        count = math.floor((high - low) / step + 1e-6) + 1
        pixel = width / self.size
        return VolumeGrid(
            image_shape=(count, self.size, self.size), voxel_zyx=(step, pixel, pixel), z_mm=0.5 * (low + high)
        )  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """How a reconstruction becomes a series.

    Attributes:
        series: headers and place of every slice; its values are air.
        flipped: axes of a reconstruction (slices, rows, columns) that are turned round.
        notes: what was assumed.
    """

    series: Series
    flipped: tuple[int, ...]
    notes: tuple[str, ...]

    def placed(self, volume: NDArray[np.float32]) -> NDArray[np.float32]:
        """A reconstruction ``(slices, rows, columns)`` as the series shows it."""
        return np.ascontiguousarray(np.flip(volume, self.flipped))


def place_series(projections: HelicalProjections, grid: VolumeGrid, units: HounsfieldScale, source: Path) -> Placement:
    """The series of a volume: patient and study of the projections, a place for every slice.

    Each slice names the projection at its own place along the table as its source.

    Raises:
        ValueError: a PatientPosition on the side, or projections without UIDs.
    """
    position, notes = str(projections.header.get("PatientPosition", "") or ""), []
    if not position:
        position = DEFAULT_POSITION
        notes.append(f"the files have no PatientPosition: {position} (head first, on the back) is assumed")
    affine, flipped = patient_affine(position, grid.x, grid.y, grid.z, (grid.voxel_zyx[0], grid.voxel_zyx[1]))
    nearest = [int(np.abs(projections.z_mm - z).argmin()) for z in grid.z]
    if 0 in flipped:
        nearest.reverse()
    uids = [projections.sop_uids[n] for n in nearest]
    if not all(uids) or len(set(uids)) < len(uids):
        raise ValueError(f"{source}: the projections need a SOPInstanceUID each, from which those of the slices follow")
    headers = []
    for number, uid in enumerate(uids):
        header = _slice_header(projections.header, affine, grid, number)
        header.SOPInstanceUID, header.PatientPosition = uid, position
        headers.append(header)
    volume = Volume(np.full(grid.image_shape, units.background, np.float32), affine, units)
    return Placement(Series(volume, tuple(headers), source, tuple(notes)), flipped, tuple(notes))


def _slice_header(projection: Dataset, affine: NDArray[np.float64], grid: VolumeGrid, number: int) -> Dataset:
    header = deepcopy(projection)
    for name in _OF_PIXELS:
        if name in header:
            delattr(header, name)
    header.SOPClassUID = header.get("SOPClassUID") or CTImageStorage
    header.Rows, header.Columns = grid.image_shape[1:]
    header.PixelSpacing = [DSfloat(v, auto_format=True) for v in grid.voxel_zyx[1:]]
    header.SliceThickness = DSfloat(grid.voxel_zyx[0], auto_format=True)
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    place = affine @ [0, 0, number, 1]
    header.ImagePositionPatient = [DSfloat(float(v), auto_format=True) for v in place[:3]]
    return header
