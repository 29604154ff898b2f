"""Write the reconstruction of measured projections: DICOM, NIfTI, HDF5, a picture, a report and a record."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale, storable_hu
from deft_ct.datasets.measured_scan import MeasuredScan
from deft_ct.io import write_dicom_series
from deft_ct.io.hdf5 import write_stacks
from deft_ct.io.nifti import write_nifti
from deft_ct.methods.registry import method_title
from deft_ct.operators.ct import FanGeometry, ParallelGeometry
from deft_ct.report import Report, save_png, write_html
from deft_ct.report.stacks import stack_figure
from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.machine import versions
from deft_ct.workflows.measured_series import PER_DICOM, attenuation_format, made_series
from deft_ct.workflows.result_view import Shown, view_of
from deft_ct.workflows.series_output import PROGRAM, RUN_RECORD, Output, file_sha256

if TYPE_CHECKING:
    from deft_ct.workflows.reconstruct_measured import MeasuredSettings

NOTICE_OF_MEASURED = "Research only, not for clinical use; measured projections"
_PROCESS = "reconstruction of measured projections; research only, not for clinical use"
_NO_SLICE_MM = 1.0
_WITH_PATHS = ("prior", "htransform", "models", "scan")
"""Settings that may name files; the geometry of the scan is recorded by itself."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredRun:
    """A reconstruction and what is written of it.

    Attributes:
        folder: where it is written to.
        source: the file of projections.
        sha256: of this file.
        scan: what the file said; its data are left out.
        geometry: of the images.
        mean: ``(slices, rows, columns)`` attenuation in 1/mm (per detector element if no length is known).
        std: posterior standard deviation likewise, or None.
        units: the Hounsfield scale, or None where nothing was calibrated.
        settings: method and corrections.
        notes: what was corrected or assumed.
        warnings: what a reader must see first.
        corrections: the notes in numbers.
        record: of the method.
        output: optional files.
    """

    folder: Path
    source: Path
    sha256: str
    scan: MeasuredScan
    geometry: ParallelGeometry | FanGeometry
    mean: NDArray[np.float32]
    std: NDArray[np.float32] | None
    units: HounsfieldScale | None
    settings: MeasuredSettings
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    corrections: dict[str, Any]
    record: dict[str, Any]
    output: Output

    @property
    def length(self) -> str:
        """Unit of lengths."""
        return "mm" if self.scan.in_mm else "element"

    @property
    def attenuation_unit(self) -> str:
        """Unit of :attr:`mean`."""
        return f"1/{self.length}"

    @property
    def unit(self) -> str:
        """Unit of the DICOM, NIfTI and pictures: HU where it is calibrated."""
        return self.attenuation_unit if self.units is None else "HU"

    @property
    def shown(self) -> NDArray[np.float32]:
        """The mean in :attr:`unit`; CT numbers end at -1024, as DICOM's do."""
        if self.units is None:
            return self.mean
        hu: NDArray[np.float32] = self.units.to_hu(self.mean)
        return storable_hu(hu)

    @property
    def shown_std(self) -> NDArray[np.float32] | None:
        """The standard deviation in :attr:`unit`."""
        if self.std is None or self.units is None:
            return self.std
        return np.asarray(self.std / self.units.scale, np.float32)

    @property
    def names(self) -> list[str]:
        """Of the images."""
        return [f"{self.scan.axis[:-1]} {n} of {self.scan.total}" for n in self.scan.numbers]

    @property
    def in_words(self) -> str:
        """Scan and images in one sentence."""
        views, detectors = self.geometry.sinogram_shape
        rows, columns = self.geometry.image_shape
        pixel, count = self.geometry.pixel_rc[0], len(self.mean)
        plural = "s" if self.length == "element" and pixel != 1 else ""
        kind = f"{self.scan.axis[:-1]}{'s' if count != 1 else ''}"
        return (
            f"{self.scan.layout}: {views} {self.geometry.kind} views of {detectors} elements, {count} {kind} of "
            f"{rows} x {columns} pixels of {pixel:.4g} {self.length}{plural}, in {self.unit}"
        )

    @property
    def slice_mm(self) -> float:
        """Distance of the slices; 1 where it is not known."""
        return self.settings.slice_mm or self.scan.slice_mm or _NO_SLICE_MM


@dataclass(frozen=True)
class _InAttenuation:
    mean: Tensor
    std: Tensor | None


def write_measured(folder: Path, run: MeasuredRun) -> None:
    """Write all files of a run to an existing empty folder; ``run.json`` lists them with their SHA-256."""
    pixel = run.geometry.pixel_rc[0]
    timed = run.scan.axis == "frames"
    series = made_series(
        run.shown, pixel_mm=pixel, slice_mm=run.slice_mm, sha256=run.sha256, source=run.source,
        frames=run.scan.numbers if timed else None, units=run.units,
    )  # fmt: skip
    options = replace(run.output.dicom, process=_PROCESS, comment=_comment(run))
    about = {"description": run.settings.summary, "details": _details(run), "like": series}
    if run.units is None:
        per_metre = run.mean * np.float32(PER_DICOM)
        options = replace(options, format=attenuation_format(per_metre, "/m" if run.scan.in_mm else "1"))
        write_dicom_series(per_metre, folder=folder / "dicom" / "mean", options=options, **about)  # type: ignore[arg-type]
    else:
        result = _InAttenuation(
            torch.from_numpy(run.mean)[:, None], None if run.std is None else torch.from_numpy(run.std)[:, None]
        )
        write_dicom_series(result, folder=folder / "dicom", options=options, **about)  # type: ignore[arg-type]
    note = f"{run.unit}; research only, not for clinical use"
    write_nifti(series.volume, folder / "mean.nii.gz", note=note, frames=timed)
    if run.shown_std is not None:
        write_nifti(series.volume.with_hu(run.shown_std), folder / "spread.nii.gz", note=note, frames=timed)
    record = measured_record(run)
    shared = {key: value for key, value in record.items() if key != "source"}
    shared["settings"] = {k: v for k, v in record["settings"].items() if k not in _WITH_PATHS}
    _write_hdf5(folder / "result.h5", run, shared)
    stacks = [(run.shown, run.unit)] + ([] if run.shown_std is None else [(run.shown_std, run.unit)])
    width = f"{pixel * run.geometry.image_shape[1]:.4g} {run.length}{'s' if run.length == 'element' else ''} wide"
    figure = stack_figure(
        stacks, names=run.names, title=f"{run.settings.summary}, in {run.unit}; {width}", note=f"{NOTICE_OF_MEASURED}."
    )
    picture = save_png(figure, folder / "slices.png", comment=NOTICE_OF_MEASURED)
    spacing = (run.slice_mm, *run.geometry.pixel_rc)
    shown = Shown(
        title=method_title(run.settings.method), mean=run.shown, std=run.shown_std, unit=run.unit, spacing_zyx=spacing,
        names=run.names, stacked=not timed and (run.scan.slice_mm or run.settings.slice_mm) is not None,
    )  # fmt: skip
    report = Report(
        title=run.settings.summary, figures={run.in_words: picture}, warnings=[*run.warnings, *run.notes],
        provenance=shared, notice=NOTICE_OF_MEASURED, view=view_of(shown),
    )  # fmt: skip
    write_html(folder / "report.html", report)
    kept = shared if run.output.deidentify else record
    kept["files"] = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    write_text(folder / RUN_RECORD, json.dumps(kept, indent=2, allow_nan=False) + "\n")


def measured_record(run: MeasuredRun) -> dict[str, Any]:
    """Everything that is needed to repeat a run, as plain values; ``source`` names the file."""
    settings = asdict(run.settings)
    return json.loads(json.dumps({
        "program": PROGRAM,
        "notice": NOTICE_OF_MEASURED,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "source": {"file": str(run.source), "sha256": run.sha256},
        "layout": run.scan.layout,
        run.scan.axis: list(run.scan.numbers),
        "unit": run.unit,
        "attenuation_unit": run.attenuation_unit,
        "hounsfield": None if run.units is None else run.units.to_dict(),
        "notes": list(run.notes),
        "warnings": list(run.warnings),
        "corrections": run.corrections,
        "settings": settings,
        "geometry": run.geometry.to_dict(),
        "reconstruction": run.record,
    }))  # fmt: skip


def _write_hdf5(path: Path, run: MeasuredRun, provenance: dict[str, Any]) -> None:
    stacks = {"attenuation": (run.mean, run.attenuation_unit)}
    if run.std is not None:
        stacks["attenuation_std"] = (run.std, run.attenuation_unit)
    if run.units is not None:
        stacks["hu"] = (np.asarray(run.units.to_hu(run.mean), np.float32), "HU")
    attributes = {
        "pixel": run.geometry.pixel_rc[0], "length_unit": run.length, "axis": run.scan.axis,
        "numbers": list(run.scan.numbers),
    }  # fmt: skip
    if run.scan.axis == "slices":
        attributes["slice_mm"] = run.slice_mm
    write_stacks(path, stacks, attributes=attributes, provenance=provenance)


def _comment(run: MeasuredRun) -> str:
    parts = ["There is no patient: the header was made for projections without one."]
    if run.units is None:
        unit = "1/m" if run.scan.in_mm else "per 1000 detector elements"
        parts.append(f"Rescaled values are the linear attenuation, {unit}, not HU.")
    if not run.scan.in_mm:
        parts.append("No length is known: a millimetre of this file is a detector element.")
    return " ".join(parts)


def _details(run: MeasuredRun) -> str:
    water = (
        "not calibrated" if run.units is None else f"water {run.units.mu_water:.5g}, air {run.units.mu_air:.3g} / mm"
    )
    return f"{run.in_words}; {water}; axis at column {run.corrections['axis_column']:.2f}; seed {run.settings.seed}"
