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

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from torch import Tensor

from deft_ct.io.dicom_ct_pd import Projection, instance_number, is_projection, public_header, read_projection
from deft_ct.io.errors import ReadError
from deft_ct.operators.memory import check_memory
from deft_ct.runtime.progress import progress_bar


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
        header=public_header(paths[0]),
    )


def is_projection_folder(folder: str | Path) -> bool:
    """Whether the first DICOM file of a folder holds a projection, not an image; False for anything else."""
    source = Path(folder)
    if not source.is_dir():
        return False
    known = (is_projection(path) for path in sorted(p for p in source.iterdir() if p.is_file()))
    return next((found for found in known if found is not None), False)


def _read_views(paths: list[Path], reverse: bool, progress: bool) -> tuple[NDArray[np.float32], list[Projection]]:
    """Line integrals ``(views, rows, columns)`` and the rest of every file, without a second copy of the pixels.

    The columns vary slowest in memory, because rebinning takes whole columns.
    """
    first, _ = read_projection(paths[0])
    rows, columns = first.shape
    check_memory(
        4 * len(paths) * rows * columns, f"a scan of {len(paths)} projections of {rows} x {columns} elements",
        "read fewer projections (every=...), or a part of the series",
    )  # fmt: skip
    stack = np.empty((len(paths), columns, rows), np.float32)
    views = []
    with progress_bar("reading", len(paths), enabled=progress) as tick:
        for place, path in zip(stack, paths, strict=True):
            view, pixels = read_projection(path)
            if view.shape != first.shape:
                raise ReadError(path, f"shape differs between projections: {first.shape} and {view.shape}")
            place[:] = pixels[::-1].T if reverse else pixels.T
            views.append(view)
            tick()
    return stack.transpose(0, 2, 1), views


def _ordered(source: Path) -> list[Path]:
    numbers = ((instance_number(path), path) for path in sorted(p for p in source.iterdir() if p.is_file()))
    numbered = [(number, path) for number, path in numbers if number is not None]
    if not numbered:
        raise ReadError(source, "holds no DICOM files; name the folder of one series of projections")
    return [path for _, path in sorted(numbered)]


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
