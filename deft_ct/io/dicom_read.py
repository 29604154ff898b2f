"""Reading a CT series from DICOM files."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import Volume
from deft_ct.io.dicom_checks import (
    check_alike,
    check_each,
    check_positions,
    is_localizer,
    orientation,
    positions_along_normal,
    slice_normal,
)
from deft_ct.io.dicom_files import DicomFile, DicomSeriesError, Found, find_series
from deft_ct.io.dicom_pixels import read_hu


@dataclass(frozen=True, eq=False)
class Series:
    """A CT series: its volume, and the headers that a derived series inherits from.

    Attributes:
        volume: the slices in HU, ordered along their normal (from feet to head for the usual orientation).
        headers: the slices' DICOM headers without pixel data, in the same order.
        source: the folder, archive or file that it was read from.
        notes: what was left out or looked unusual while reading, in words.
    """

    volume: Volume
    headers: tuple[Dataset, ...]
    source: Path
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.headers) != self.volume.shape[0]:
            raise ValueError(f"{len(self.headers)} headers for {self.volume.shape[0]} slices")

    def __len__(self) -> int:
        return len(self.headers)

    @property
    def hu(self) -> NDArray[np.float32]:
        """(Z, H, W) float32 CT numbers, HU."""
        return self.volume.hu

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of a slice."""
        return self.volume.image_shape

    @property
    def pixel_mm(self) -> float:
        """Width of a pixel in mm."""
        return self.volume.pixel_mm

    @property
    def z_mm(self) -> float:
        """Distance of neighbouring slices in mm."""
        return self.volume.z_mm

    @property
    def units(self) -> HounsfieldScale:
        """The attenuation scale of :meth:`attenuation`."""
        return self.volume.units

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def slice_uids(self) -> tuple[str, ...]:
        """SOPInstanceUID of every slice, in order: what seeds and provenance are tied to."""
        return tuple(str(header.SOPInstanceUID) for header in self.headers)

    def attenuation(self, *, nonnegative: bool = False) -> Tensor:
        """(Z, 1, H, W) float32 attenuation in 1/mm; see :meth:`deft_ct.ct.volume.Volume.attenuation`."""
        return self.volume.attenuation(nonnegative=nonnegative)

    def resampled(self, factor: int = 2) -> Series:
        """Average ``factor`` x ``factor`` pixels, and change the headers to match.

        Rows, Columns, PixelSpacing and ImagePositionPatient describe the coarse slices, so that a series written like
        this one has the right place in the patient. ImagePositionPatient is the centre of the first pixel; it moves by
        half a block less half a pixel.

        Raises:
            ValueError: ``factor`` does not divide the image.
        """
        volume = self.volume.resampled(factor)
        return replace(self, volume=volume, headers=tuple(_coarse_header(h, factor) for h in self.headers))

    def slices(self, start: int, stop: int) -> Series:
        """The consecutive slices ``start`` <= z < ``stop`` as a separate series.

        Raises:
            ValueError: the range is empty or leaves the series.
        """
        if not 0 <= start < stop <= len(self):
            raise ValueError(f"expected 0 <= start < stop <= {len(self)}, got start={start}, stop={stop}")
        affine = self.volume.affine.copy()
        affine[:3, 3] += start * affine[:3, 2]
        volume = Volume(self.hu[start:stop], affine, self.units)
        return replace(self, volume=volume, headers=self.headers[start:stop])


def read_dicom_series(
    folder: str | Path,
    *,
    series_uid: str | None = None,
    allow_gaps: bool = False,
    units: HounsfieldScale | None = None,
) -> Series:
    """Read one CT series.

    Files that are not DICOM, not CT images, and scout views are skipped and named in ``notes``. Slices are ordered by
    ImagePositionPatient along the slice normal; names and InstanceNumber play no part.

    Args:
        folder: a folder (read with its sub-folders), a zip archive, a DICOMDIR or a single file.
        series_uid: SeriesInstanceUID to read, where there are several.
        allow_gaps: accept missing slices and unequal distances; the volume's affine then holds the mean distance only.
        units: attenuation scale; the default one (water 0.02 /mm) when None.

    Returns:
        The series; 512 x 512 slices stay 512 x 512.

    Raises:
        FileNotFoundError: ``folder`` does not exist.
        DicomSeriesError: a ValueError that says what is wrong with the input and what to do: nothing to read, several
            series, a scout view, missing or doubled slices, unequal spacing, a tilted gantry, damaged files, ...
    """
    source = Path(folder).expanduser()
    found = find_series(source)
    files = _choose(found, series_uid, source)
    return _read(found, files, source, allow_gaps, units)


def read_all_dicom_series(
    folder: str | Path, *, allow_gaps: bool = False, units: HounsfieldScale | None = None
) -> tuple[list[Series], dict[str, str]]:
    """Read every CT series below a folder that can be read; for training sets.

    Args:
        folder: as for :func:`read_dicom_series`.
        allow_gaps: accept missing slices and unequal distances.
        units: attenuation scale; the default one when None.

    Returns:
        The series in order of their SeriesInstanceUID, and for each series that was left out its SeriesInstanceUID and
        the reason.

    Raises:
        FileNotFoundError: ``folder`` does not exist.
        DicomSeriesError: it holds no CT image at all.
    """
    source = Path(folder).expanduser()
    found = find_series(source)
    series, refused = [], {}
    for uid in sorted(found.series):
        try:
            series.append(_read(found, found.series[uid], source, allow_gaps, units))
        except DicomSeriesError as error:
            refused[uid] = str(error)
    return series, refused


def _read(
    found: Found, files: list[DicomFile], source: Path, allow_gaps: bool, units: HounsfieldScale | None
) -> Series:
    scouts = [f for f in files if is_localizer(f.header)]
    if len(scouts) == len(files):
        raise DicomSeriesError(
            f"series {files[0].header.SeriesInstanceUID} is a localizer (scout view), not a stack of slices; choose "
            "the axial series of the study"
        )
    files = [f for f in files if not is_localizer(f.header)]
    check_each(files)
    check_alike(files)
    along = positions_along_normal(files)
    files = [files[n] for n in np.argsort(along, kind="stable")]
    check_positions(files, allow_gaps=allow_gaps)
    hu = np.stack([read_hu(f) for f in files])
    volume = Volume(hu, _affine(files), units or HounsfieldScale())
    return Series(volume, tuple(f.header for f in files), source, _notes(found, files, scouts))


def _choose(found: Found, series_uid: str | None, source: Path) -> list[DicomFile]:
    if series_uid is not None:
        if series_uid in found.series:
            return found.series[series_uid]
        raise DicomSeriesError(f"{source} has no CT series {series_uid}; it has:\n{_listing(found)}")
    # Scout views usually are a series of their own: they are no choice.
    candidates = {u: f for u, f in found.series.items() if not all(is_localizer(x.header) for x in f)}
    if not candidates:
        return next(iter(found.series.values()))
    if len(candidates) > 1:
        raise DicomSeriesError(
            f"{source} holds {len(candidates)} CT series; choose one with series_uid=... or with --series:\n"
            f"{_listing(found)}"
        )
    return next(iter(candidates.values()))


def _listing(found: Found) -> str:
    lines = []
    for uid, files in found.series.items():
        header = files[0].header
        what = "localizer" if all(is_localizer(f.header) for f in files) else "slices"
        size = f"{header.get('Rows', '?')}x{header.get('Columns', '?')}"
        kernel = header.get("ConvolutionKernel", "") or "-"
        text = header.get("SeriesDescription", "") or "no description"
        lines.append(f"  {uid}  {len(files)} {what}, {size}, kernel {kernel}, {text}")
    return "\n".join(lines)


def _notes(found: Found, files: list[DicomFile], scouts: list[DicomFile]) -> tuple[str, ...]:
    notes = [f"skipped {count} x {kind}" for kind, count in sorted(found.others.items())]
    if found.not_dicom:
        notes.append(f"skipped {len(found.not_dicom)} file(s) that are not DICOM")
    if scouts:
        notes.append(f"skipped {len(scouts)} localizer image(s) in the series")
    kernels = Counter(str(f.header.get("ConvolutionKernel", "") or "unknown") for f in files)
    if len(kernels) > 1:
        notes.append(f"the series mixes reconstruction kernels: {', '.join(sorted(kernels))}")
    frames = {str(f.header.get("FrameOfReferenceUID", "")) for f in files}
    if len(frames) > 1:
        # De-identified collections (LIDC-IDRI among them) gave every slice another UID; the positions still agree.
        notes.append(f"the slices name {len(frames)} frames of reference; the first one is taken for all")
    if str(files[0].header.get("LossyImageCompression", "")) == "01":
        notes.append("the pixel data was compressed with loss")
    return tuple(notes)


def _affine(files: list[DicomFile]) -> NDArray[np.float64]:
    """(4, 4) LPS affine of sorted slices; columns are the steps of column, row and slice index."""
    first, last = files[0].header, files[-1].header
    rows, columns = orientation(first)
    normal = slice_normal(first)
    row_spacing, column_spacing = (float(v) for v in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = rows / np.linalg.norm(rows) * column_spacing
    affine[:3, 1] = columns / np.linalg.norm(columns) * row_spacing
    affine[:3, 3] = np.asarray(first.ImagePositionPatient, float)
    if len(files) > 1:
        between = np.asarray(last.ImagePositionPatient, float) - affine[:3, 3]
        # check_positions allowed a sideways drift below half a pixel (rounding): it is left out here.
        affine[:3, 2] = normal * float(between @ normal) / (len(files) - 1)
    else:
        thickness = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1.0)
        affine[:3, 2] = normal * abs(thickness)
    return affine


def _coarse_header(header: Dataset, factor: int) -> Dataset:
    coarse = deepcopy(header)
    rows, columns = orientation(header)
    row_spacing, column_spacing = (float(v) for v in header.PixelSpacing)
    shift = 0.5 * (factor - 1) * (rows * column_spacing + columns * row_spacing)
    position = np.asarray(header.ImagePositionPatient, float) + shift
    coarse.Rows, coarse.Columns = int(header.Rows) // factor, int(header.Columns) // factor
    coarse.PixelSpacing = [DSfloat(v * factor, auto_format=True) for v in (row_spacing, column_spacing)]
    coarse.ImagePositionPatient = [DSfloat(float(v), auto_format=True) for v in position]
    return coarse
