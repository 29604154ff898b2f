"""A CT series from whatever holds one: DICOM, NIfTI, or an image that SimpleITK reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage
from pydicom.valuerep import DSfloat

from deft_ct.ct.hounsfield import HU_MIN, HounsfieldScale
from deft_ct.ct.volume import Volume
from deft_ct.io.dicom_checks import MIN_AXIAL
from deft_ct.io.dicom_derive import MADE_HEADER, hashed_uid
from deft_ct.io.dicom_findings import value_findings
from deft_ct.io.dicom_read import read_dicom_series
from deft_ct.io.errors import ReadError
from deft_ct.io.itk_images import ITK_SUFFIXES, read_itk
from deft_ct.io.nifti import SUFFIXES as NIFTI_SUFFIXES
from deft_ct.io.nifti import read_nifti
from deft_ct.io.series import Series
from deft_ct.runtime.fields import check_fields


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is wanted of a source; see :func:`deft_ct.io.read_dicom_series`.

    Args:
        series_uid: SeriesInstanceUID, where there are several series.
        phase: ``"VALUE"`` or ``"NAME=VALUE"``, where a series holds several scan phases.
        allow_gaps: accept missing slices and unequal distances.
        slices: first and last slice along the normal of the slices, counted from 1; all when None.

    Raises:
        ValueError: ``slices`` are none.
    """

    series_uid: str | None = None
    phase: str | None = None
    allow_gaps: bool = False
    slices: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.slices is not None and not 1 <= self.slices[0] <= self.slices[1]:
            raise ValueError(f"slices count from 1, the first before the last, got {self.slices[0]}:{self.slices[1]}")


def read_series(source: str | Path, chosen: Chosen | None = None, *, units: HounsfieldScale | None = None) -> Series:
    """Read a CT series.

    Args:
        source: a folder, archive, DICOMDIR or file of DICOM; a NIfTI file; or a file of :data:`ITK_SUFFIXES`, which
            needs the extra ``simpleitk``.
        chosen: which series and phase, for DICOM only; which slices.
        units: attenuation scale; the default one when None.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ReadError: it cannot be read, or holds no axial CT slices.
        ValueError: ``chosen`` asks for a series or phase of a file that has none.
        MissingExtraError: SimpleITK is needed and not installed.
    """
    path, wanted = Path(source).expanduser(), chosen or Chosen()
    return _taken(_whole_series(path, wanted, units), wanted.slices)


def _taken(series: Series, wanted: tuple[int, int] | None) -> Series:
    """The slices that are wanted."""
    if wanted is None:
        return series
    first, last = wanted
    if last > len(series):
        raise ReadError(series.source, f"slices {first} to {last} are wanted, and the series has {len(series)}")
    change = f"slices {first} to {last} of {len(series)} were taken"
    return replace(series.slices(first - 1, last), changes=(*series.changes, change))


def _whole_series(path: Path, wanted: Chosen, units: HounsfieldScale | None) -> Series:
    name = path.name.lower()
    if path.is_dir() or not name.endswith(NIFTI_SUFFIXES + ITK_SUFFIXES):
        return read_dicom_series(
            path, series_uid=wanted.series_uid, phase=wanted.phase, allow_gaps=wanted.allow_gaps, units=units
        )
    if wanted.series_uid is not None or wanted.phase is not None:
        raise ValueError(f"{path.name} holds one volume: leave out the series and the phase")
    read = read_nifti if name.endswith(NIFTI_SUFFIXES) else read_itk
    return series_of_volume(read(path, units=units), path)


def series_of_volume(volume: Volume, source: Path) -> Series:
    """A series with headers made for a volume that has none; UIDs depend on its content alone.

    Values below -1024 HU become -1024, as in DICOM series.

    Raises:
        ReadError: the slices are not axial.
    """
    normal = np.cross(volume.affine[:3, 0], volume.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    if abs(normal[2]) < MIN_AXIAL:
        raise ReadError(source, f"its slices are not axial (normal {np.round(normal, 3).tolist()} in patient axes)")
    below = int((volume.hu < HU_MIN).sum())
    clipped = volume.with_hu(np.maximum(volume.hu, HU_MIN)) if below else volume
    key = (clipped.hu.tobytes(), clipped.affine.tobytes())
    study, series, frame = (hashed_uid(name, *key) for name in ("study", "series", "frame of reference"))
    headers = []
    for n in range(len(clipped.hu)):
        header = _header(clipped, n)
        header.StudyInstanceUID, header.SeriesInstanceUID = UID(study), UID(series)
        header.FrameOfReferenceUID, header.SOPInstanceUID = UID(frame), UID(hashed_uid("slice", series, str(n)))
        headers.append(header)
    changes = ["the source has no DICOM headers: patient, study and UIDs were made up"]
    if below:
        changes.append(f"{below:,} of {clipped.hu.size:,} pixels lie below {HU_MIN:g} HU and were set to it")
    found = value_findings(list(clipped.hu), unchanged=not below)
    return replace(Series(clipped, tuple(headers), source), changes=tuple(changes), findings=found)


def _header(volume: Volume, n: int) -> Dataset:
    """A single CT image with nothing but its place."""
    header = Dataset()
    header.SOPClassUID, header.Modality, header.ConversionType = CTImageStorage, "CT", MADE_HEADER
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    header.SpecificCharacterSet = "ISO_IR 192"
    header.InstanceNumber = n + 1
    header.Rows, header.Columns = volume.image_shape
    header.PixelSpacing = [DSfloat(v, auto_format=True) for v in volume.spacing_mm]
    header.SliceThickness = DSfloat(volume.z_mm, auto_format=True)
    cosines = volume.affine[:3, :2] / np.linalg.norm(volume.affine[:3, :2], axis=0)
    header.ImageOrientationPatient = [DSfloat(float(v), auto_format=True) for v in cosines.T.ravel()]
    position = volume.affine[:3, 3] + n * volume.affine[:3, 2]
    header.ImagePositionPatient = [DSfloat(float(v), auto_format=True) for v in position]
    return header
