"""Check a finished result: its files are those that were written, and one slice comes out the same again."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray

from deft_ct.ct.hounsfield import storable_hu
from deft_ct.io import Chosen, Series, read_series
from deft_ct.runtime.fields import from_values
from deft_ct.workflows.reconstruct_series import SparseView, built_methods
from deft_ct.workflows.series_job import SeriesJob
from deft_ct.workflows.series_output import PROGRAM, RUN_RECORD, file_sha256

TOLERANCE_HU = 1.0
"""Largest difference that is rounding: of batches, of threads, and of DICOM, which stores whole HU."""
_DICOM_ROUNDING = {"mean": 0.5, "spread": 0.05}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found.

    Attributes:
        files: how many files are as they were written.
        slice_number: which slice was reconstructed again, from 1.
        largest_hu: name of a stored volume -> largest difference to the new slice.
        tolerance_hu: what counts as the same.
        problems: sentences on what differs; none of a sound result.
        notes: what is different without being wrong: versions of packages.
    """

    files: int
    slice_number: int
    largest_hu: Mapping[str, float]
    tolerance_hu: float
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def verify_series(
    out: str | Path,
    source: str | Path | None = None,
    *,
    slice_number: int | None = None,
    tolerance_hu: float = TOLERANCE_HU,
    progress: bool = False,
) -> Verified:
    """Compare a result of :func:`deft_ct.workflows.reconstruct_series.reconstruct_series` with one slice made anew.

    Every file that ``run.json`` lists must have its SHA-256. Then one slice is scanned and reconstructed again with the
    settings of ``run.json``, and compared with the stored mean and spread, in NIfTI and in DICOM.

    Args:
        out: the folder of the result.
        source: the series that it was made from; where ``run.json`` says if None.
        slice_number: which slice, counted from 1; the middle one if None.
        tolerance_hu: largest difference that counts as the same, in HU.
        progress: show progress bars.

    Raises:
        FileNotFoundError: there is no finished result, or the series is gone.
        ValueError: ``run.json`` is of another command or damaged, the series is another one, or there is no such slice.
    """
    folder = Path(out)
    record = _record(folder)
    problems = _changed_files(folder, record["files"])
    settings = from_values(SparseView, record["settings"])
    settings = replace(
        settings, compare=(), options={k: v for k, v in settings.options.items() if k == settings.method}
    )
    series = _source(record, source, settings)
    number = len(series) // 2 + 1 if slice_number is None else slice_number
    if not 1 <= number <= len(series):
        raise ValueError(f"slices count from 1 to {len(series)}, got {number}")
    methods = built_methods(settings, settings.networks())
    hashes = {key: value for key, value in methods[settings.method].describe().items() if key.endswith("_sha256")}
    before = record["reconstructions"][settings.method]
    problems += [
        f"{key.removesuffix('_sha256')} is another network: {str(value)[:12]} now, {str(before.get(key))[:12]} then"
        for key, value in hashes.items()
        if before.get(key) != value
    ]
    job = SeriesJob(series.slices(number - 1, number), settings, methods, unmeasured=False, progress=progress)
    batch = job.batch(0, 1, progress=progress)
    units = series.units
    new = {"mean": storable_hu(units.to_hu(batch.means[settings.method]))[0]}
    if settings.method in batch.stds:
        new["spread"] = (batch.stds[settings.method] / np.float32(units.scale))[0]
    largest: dict[str, float] = {}
    for name, image in new.items():
        for kind, stored, rounding in _stored(folder, name, number):
            found = float(np.abs(stored - image).max()) if stored.shape == image.shape else float("inf")
            largest[kind] = found
            if not found <= tolerance_hu + rounding:
                problems.append(f"{kind}: slice {number} differs by up to {found:.4g} HU (allowed: {tolerance_hu:g})")
    return Verified(
        files=len(record["files"]), slice_number=number, largest_hu=largest, tolerance_hu=tolerance_hu,
        problems=tuple(problems), notes=_other_versions(record),
    )  # fmt: skip


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RUN_RECORD
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no finished result: there is no {RUN_RECORD}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        ours = record["program"] == PROGRAM
        complete = {"files", "settings", "source", "reconstructions", "versions"} <= set(record)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): is it damaged?") from error
    if not ours or not complete or "views" not in record["settings"]:
        raise ValueError(f"{path} is not of a series whose scan was simulated: nothing else can be verified")
    return dict(record)


def _changed_files(folder: Path, files: Mapping[str, str]) -> list[str]:
    found = []
    for name, sha256 in files.items():
        path = folder / Path(name).name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif file_sha256(path) != sha256:
            found.append(f"{name} was changed since it was written")
    return found


def _source(record: Mapping[str, Any], source: str | Path | None, settings: SparseView) -> Series:
    """The series that the result was made from, at its size."""
    known = record["source"]
    path = known.get("path") if source is None else source
    if path is None:
        raise ValueError("this result does not say what it was made from (it is de-identified): name the series, too")
    chosen = from_values(Chosen, known["chosen"]) if known.get("chosen") else None
    series = read_series(path, chosen).fitted(settings.side)
    uids = known.get("slice_uids")
    count = known["slices"] if uids is None else len(uids)
    if len(series) != count or (uids is not None and list(series.slice_uids) != uids):
        raise ValueError(f"{path} is not the series that the result was made from: its slices have other UIDs")
    return series


def _stored(folder: Path, name: str, number: int) -> list[tuple[str, NDArray[np.floating], float]]:
    """The stored slice in each format, ``(H, W)`` HU, and half the step that it is rounded to."""
    nifti, dicom = folder / f"{name}.nii.gz", folder / "dicom" / name / f"{number:04d}.dcm"
    found: list[tuple[str, NDArray[np.floating], float]] = []
    if nifti.is_file():
        found.append((nifti.name, np.asarray(nibabel.load(nifti).dataobj[:, :, number - 1]).T, 0.0))  # type: ignore[attr-defined]
    if dicom.is_file():
        image = pydicom.dcmread(dicom)
        hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        found.append((str(dicom.relative_to(folder)), hu, _DICOM_ROUNDING[name]))
    return found


def _other_versions(record: Mapping[str, Any]) -> tuple[str, ...]:
    now = {name: importlib.metadata.version(name) for name in record["versions"] if name != "python"}
    return tuple(
        f"{name} {version} then, {now[name]} now"
        for name, version in record["versions"].items()
        if name in now and now[name] != version
    )
