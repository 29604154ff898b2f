"""Reading a CT series from DICOM files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import Volume
from deft_ct.io.dicom_checks import (
    check_alike,
    check_positions,
    check_slice,
    is_localizer,
    orientation,
    positions_along_normal,
    slice_normal,
)
from deft_ct.io.dicom_files import DicomFile, DicomSeriesError, Found, find_series
from deft_ct.io.dicom_layouts import check_one_folder
from deft_ct.io.dicom_pixels import read_hu
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.parsing import parsing
from deft_ct.runtime.printable import printable

T = TypeVar("T")


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

    def file_of(self, header: Dataset) -> str | Path:
        """The file of one of the headers, for messages; where it was read from if that is not known."""
        return getattr(header, "filename", None) or self.source

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
        ReadError: a file is damaged, or larger than :mod:`deft_ct.io.limits` allows; it names the file.
        DicomSeriesError: a ReadError that says what is wrong with the series and what to do: nothing to read, several
            series, a scout view, missing or doubled slices, unequal spacing, a tilted gantry, ...
    """
    source = Path(folder).expanduser()
    found = find_series(source)
    if series_uid is None:
        check_one_folder(source, (file.path.parent for files in found.series.values() for file in files))
    files = _choose(found, series_uid, source)
    _refuse_damaged(found, files)
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
        The series in order of their SeriesInstanceUID, and what was left out with the reason: damaged files by their
        path below ``folder``, series by their SeriesInstanceUID. A series with a damaged slice is read without it.

    Raises:
        FileNotFoundError: ``folder`` does not exist.
        DicomSeriesError: it holds no CT image at all.
    """
    source = Path(folder).expanduser()
    found = find_series(source)
    refused = {_below(source, damaged.error, damaged.name): str(damaged.error) for damaged in found.damaged}
    series = []
    for uid in sorted(found.series):
        try:
            series.append(_read(found, found.series[uid], source, allow_gaps, units, refused))
        except ReadError as error:
            refused[uid or "no SeriesInstanceUID"] = str(error)
    return series, refused


def _below(source: Path, error: ReadError, name: str) -> str:
    path = Path(error.path)
    return printable(path.relative_to(source) if path != source and path.is_relative_to(source) else name)


def _refuse_damaged(found: Found, files: list[DicomFile]) -> None:
    """A file that is damaged may be a slice of the series, unless it says otherwise."""
    uid = str(files[0].header.get("SeriesInstanceUID") or "")
    mine = [damaged for damaged in found.damaged if damaged.series_uid in (None, uid)]
    if not mine:
        return
    error = mine[0].error
    more = f" ({len(mine) - 1} more file(s) are damaged: {', '.join(d.name for d in mine[1:4])})" if mine[1:] else ""
    raise DicomSeriesError(error.path, f"{error.problem}{more}")


def _read(
    found: Found,
    files: list[DicomFile],
    source: Path,
    allow_gaps: bool,
    units: HounsfieldScale | None,
    refused: dict[str, str] | None = None,
) -> Series:
    """Slices that cannot be read end it; where there is ``refused``, they are put there and left out."""
    with parsing(source, "a CT series"):
        scouts = [f for f in files if is_localizer(f.header)]
        if len(scouts) == len(files):
            uid = printable(files[0].header.get("SeriesInstanceUID"))
            raise DicomSeriesError(
                source,
                f"series {uid} is a localizer (scout view), not a stack of slices; choose the axial series of a study",
            )
        files = [f for f in files if not is_localizer(f.header)]
        files = [f for f, _ in _each(files, check_slice, source, refused)]
        check_alike(files)
        along = positions_along_normal(files)
        files = [files[n] for n in np.argsort(along, kind="stable")]
        check_positions(files, allow_gaps=allow_gaps)
        pixels = len(files) * int(files[0].header.Rows) * int(files[0].header.Columns)
        stored = sum(file.stored for file in files)
        current_limits().check_declared(source, 4 * pixels, stored, what=f"{len(files)} slices")
        images = _each(files, read_hu, source, refused)
        files = [f for f, _ in images]
        check_positions(files, allow_gaps=allow_gaps)
        volume = Volume(np.stack([hu for _, hu in images]), _affine(files), units or HounsfieldScale())
        return Series(volume, tuple(f.header for f in files), source, _notes(found, files, scouts))


def _each(
    files: list[DicomFile], do: Callable[[DicomFile], T], source: Path, refused: dict[str, str] | None
) -> list[tuple[DicomFile, T]]:
    """``do`` of every file; those that raise are put into ``refused`` if there is one.

    Raises:
        ReadError: of the first file that raises, if there is no ``refused`` or every file raises.
    """
    done, errors = [], []
    for file in files:
        try:
            done.append((file, do(file)))
        except ReadError as error:
            if refused is None:
                raise
            errors.append((file, error))
    if not done:
        raise errors[0][1]
    if refused is not None:
        refused |= {_below(source, error, file.name): str(error) for file, error in errors}
    return done


def _choose(found: Found, series_uid: str | None, source: Path) -> list[DicomFile]:
    if series_uid is not None:
        if series_uid in found.series:
            return found.series[series_uid]
        raise DicomSeriesError(source, f"it has no CT series {printable(series_uid)}; it has:\n{_listing(found)}")
    # Scout views usually are a series of their own: they are no choice.
    candidates = {u: f for u, f in found.series.items() if not all(is_localizer(x.header) for x in f)}
    if not candidates:
        return next(iter(found.series.values()))
    if len(candidates) > 1:
        raise DicomSeriesError(
            source,
            f"it holds {len(candidates)} CT series; choose one with series_uid=... or with --series:\n"
            f"{_listing(found)}",
        )
    return next(iter(candidates.values()))


def _listing(found: Found) -> str:
    lines = []
    for uid, files in found.series.items():
        header = files[0].header
        what = "localizer" if all(is_localizer(f.header) for f in files) else "slices"
        size = f"{header.get('Rows', '?')}x{header.get('Columns', '?')}"
        kernel = printable(header.get("ConvolutionKernel", "") or "-")
        text = printable(header.get("SeriesDescription", "") or "no description")
        lines.append(f"  {printable(uid)}  {len(files)} {what}, {size}, kernel {kernel}, {text}")
    return "\n".join(lines)


def _notes(found: Found, files: list[DicomFile], scouts: list[DicomFile]) -> tuple[str, ...]:
    notes = [f"skipped {count} x {kind}" for kind, count in sorted(found.others.items())]
    if found.not_dicom:
        named = ", ".join(found.not_dicom[:3]) + (", ..." if found.not_dicom[3:] else "")
        notes.append(f"skipped {len(found.not_dicom)} file(s) that are not DICOM: {named}")
    if found.damaged:
        named = ", ".join(damaged.name for damaged in found.damaged)
        notes.append(f"left out {len(found.damaged)} damaged file(s): {named}")
    if scouts:
        notes.append(f"skipped {len(scouts)} localizer image(s) in the series")
    kernels = Counter(str(f.header.get("ConvolutionKernel", "") or "unknown") for f in files)
    if len(kernels) > 1:
        notes.append(f"the series mixes reconstruction kernels: {printable(', '.join(sorted(kernels)))}")
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
