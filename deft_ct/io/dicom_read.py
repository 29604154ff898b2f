"""Reading a CT series from DICOM files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import Volume
from deft_ct.io.archives import needs_unpacking, unpacked
from deft_ct.io.dicom_checks import (
    check_alike,
    check_positions,
    check_slice,
    is_tilted,
    orientation,
    position_notes,
    positions_along_normal,
    slice_normal,
)
from deft_ct.io.dicom_files import DicomFile, DicomSeriesError, Found, find_series, forget
from deft_ct.io.dicom_findings import pixel_findings, pixel_notes
from deft_ct.io.dicom_layouts import check_one_folder
from deft_ct.io.dicom_pixels import read_hu
from deft_ct.io.dicom_select import choose_phase, is_localizer, is_page, without_copies, without_strays
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.parsing import parsing
from deft_ct.io.series import Series
from deft_ct.runtime.printable import printable

T = TypeVar("T")


def read_dicom_series(
    folder: str | Path,
    *,
    series_uid: str | None = None,
    phase: str | None = None,
    allow_gaps: bool = False,
    units: HounsfieldScale | None = None,
) -> Series:
    """Read one CT series.

    Files that are not DICOM, not CT images, scout views, dose pages and identical copies of slices are skipped and
    named in ``notes``. Slices are ordered by ImagePositionPatient along the slice normal; names and InstanceNumber play
    no part. The frames of an enhanced multi-frame CT image are slices. A tilted gantry gives a sheared affine.

    Args:
        folder: a folder (read with its sub-folders), a zip or tar archive (also one inside of the other), a
            DICOMDIR (the files that it references) or a single file.
        series_uid: SeriesInstanceUID to read, where there are several.
        phase: which scan phase, where a series holds several: ``"VALUE"`` or ``"NAME=VALUE"`` of an attribute of
            :data:`deft_ct.io.dicom_select.PHASES`; the error lists them.
        allow_gaps: accept missing slices and unequal distances; the volume's affine then holds the mean distance only.
        units: attenuation scale; the default one (water 0.02 /mm) when None.

    Returns:
        The series; 512 x 512 slices stay 512 x 512.

    Raises:
        FileNotFoundError: ``folder`` does not exist.
        ReadError: a file is damaged, or larger than :mod:`deft_ct.io.limits` allows; it names the file.
        DicomSeriesError: a ReadError that says what is wrong with the series and what to do: nothing to read, several
            series or phases, a scout view, missing or doubled slices, unequal spacing, ...
    """
    source = Path(folder).expanduser()
    if needs_unpacking(source):
        with unpacked(source) as inside:
            series = read_dicom_series(inside, series_uid=series_uid, phase=phase, allow_gaps=allow_gaps, units=units)
        for header in series.headers:
            header.filename = str(source)
        return replace(series, source=source)
    found = find_series(source)
    if series_uid is None:
        check_one_folder(source, (file.path.parent for files in found.series.values() for file in files))
    files = _choose(found, series_uid, source)
    _refuse_damaged(found, files)
    return _read(found, files, _Wanted(source=source, allow_gaps=allow_gaps, units=units, phase=phase))


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
    wanted = _Wanted(source=source, allow_gaps=allow_gaps, units=units, refused=refused)
    series = []
    for uid in sorted(found.series):
        try:
            series.append(_read(found, found.series[uid], wanted))
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


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What the caller asks for; slices that cannot be read end it, or are put into ``refused`` where that is given."""

    source: Path
    allow_gaps: bool
    units: HounsfieldScale | None
    phase: str | None = None
    refused: dict[str, str] | None = None


def _read(found: Found, files: list[DicomFile], wanted: _Wanted) -> Series:
    source = wanted.source
    try:
        with parsing(source, "a CT series"):
            if all(is_localizer(f.header) for f in files):
                uid = printable(files[0].header.get("SeriesInstanceUID"))
                raise DicomSeriesError(
                    source,
                    f"series {uid} is a localizer (scout view), not a stack of slices; choose the axial series of a "
                    "study",
                )
            strays = without_strays(files)
            files = [f for f, _ in _each(strays.files, check_slice, wanted)]
            copies = without_copies(files)
            chosen = choose_phase(copies.files, wanted.phase, source)
            check_alike(chosen.files)
            along = positions_along_normal(chosen.files)
            files = [chosen.files[n] for n in np.argsort(along, kind="stable")]
            check_positions(files, allow_gaps=wanted.allow_gaps)
            pixels = len(files) * int(files[0].header.Rows) * int(files[0].header.Columns)
            stored = sum(file.stored for file in files)
            current_limits().check_declared(source, 4 * pixels, stored, what=f"{len(files)} slices")
            images = _each(files, read_hu, wanted)
            files, slices = [f for f, _ in images], [one for _, one in images]
            check_positions(files, allow_gaps=wanted.allow_gaps)
            hu = np.stack([one.hu for one in slices])
            volume = Volume(hu, _affine(files), wanted.units or HounsfieldScale())
            headers = tuple(f.header for f in files)
            notes = (*_notes(found, files), *strays.notes, *copies.notes, *chosen.notes)
            changes = (*position_notes(files), *pixel_notes(slices))
            return Series(volume, headers, source, notes, changes, pixel_findings(slices, headers))
    finally:
        forget()


def _each(files: list[DicomFile], do: Callable[[DicomFile], T], wanted: _Wanted) -> list[tuple[DicomFile, T]]:
    """``do`` of every file; those that raise are put into ``refused`` if there is one.

    Raises:
        ReadError: of the first file that raises, if there is no ``refused`` or every file raises.
    """
    done, errors = [], []
    for file in files:
        try:
            done.append((file, do(file)))
        except ReadError as error:
            if wanted.refused is None:
                raise
            errors.append((file, error))
    if not done:
        raise errors[0][1]
    if wanted.refused is not None:
        wanted.refused.update({_below(wanted.source, error, file.name): str(error) for file, error in errors})
    return done


def _choose(found: Found, series_uid: str | None, source: Path) -> list[DicomFile]:
    if series_uid is not None:
        if series_uid in found.series:
            return found.series[series_uid]
        raise DicomSeriesError(source, f"it has no CT series {printable(series_uid)}; it has:\n{_listing(found)}")
    # Scout views and dose pages usually are a series of their own: they are no choice.
    candidates = {u: f for u, f in found.series.items() if not all(_is_no_slice(x.header) for x in f)}
    if not candidates:
        return next(iter(found.series.values()))
    if len(candidates) > 1:
        raise DicomSeriesError(
            source,
            f"it holds {len(candidates)} CT series; choose one with series_uid=... or with --series:\n"
            f"{_listing(found)}",
        )
    return next(iter(candidates.values()))


def _is_no_slice(header: Dataset) -> bool:
    return is_localizer(header) or is_page(header)


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


def _notes(found: Found, files: list[DicomFile]) -> tuple[str, ...]:
    notes = [*found.unread, *(f"skipped {count} x {kind}" for kind, count in sorted(found.others.items()))]
    if found.not_dicom:
        named = ", ".join(found.not_dicom[:3]) + (", ..." if found.not_dicom[3:] else "")
        notes.append(f"skipped {len(found.not_dicom)} file(s) that are not DICOM: {named}")
    if found.damaged:
        named = ", ".join(damaged.name for damaged in found.damaged)
        notes.append(f"left out {len(found.damaged)} damaged file(s): {named}")
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
        # A drift below half a pixel without a tilt is rounding: it is left out.
        step = between if is_tilted(files) else normal * float(between @ normal)
        affine[:3, 2] = step / (len(files) - 1)
    else:
        thickness = float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1.0)
        affine[:3, 2] = normal * abs(thickness)
    return affine
