"""Write the reconstruction of raw data: DICOM, NIfTI, a picture, a report and a record, in one folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import storable_hu
from deft_ct.io import write_dicom_series
from deft_ct.io.nifti import write_nifti
from deft_ct.report import Report, save_png, write_html
from deft_ct.report.planes import planes_figure
from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.machine import versions
from deft_ct.workflows.projection_series import Placement
from deft_ct.workflows.result_view import Shown, view_of
from deft_ct.workflows.series_output import PROGRAM, RUN_RECORD, Output, file_sha256

UNVERIFIED = "DICOM-CT-PD is unverified on a real file: place, orientation and HU may be wrong"
NOTICE = f"Research only, not for clinical use; {UNVERIFIED}"
_PROCESS = "reconstruction of helical projections; research only, not for clinical use; unverified on a real file"
_COMMENT = "Made from the projections of the scan that the acquisition attributes describe. Unverified on a real file."


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeRun:
    """A reconstructed scan and what is written of it.

    Attributes:
        folder: where it is written to.
        place: the series, without values.
        mean: ``(slices, rows, columns)`` attenuation in 1/mm, as the series shows it.
        std: posterior standard deviation likewise, or None.
        summary: one line for titles.
        settings: method and slices, JSON-ready but for tuples.
        record: of the method.
        scan: of the scan and the voxels.
        warnings: what a reader must see first.
        output: optional files.
    """

    folder: Path
    place: Placement
    mean: NDArray[np.float32]
    std: NDArray[np.float32] | None
    summary: str
    settings: dict[str, Any]
    record: dict[str, Any]
    scan: dict[str, Any]
    warnings: tuple[str, ...]
    output: Output

    @property
    def hu(self) -> NDArray[np.float32]:
        """``(slices, rows, columns)`` HU."""
        units = self.place.series.units
        hu: NDArray[np.float32] = units.to_hu(self.mean)
        return hu


@dataclass(frozen=True)
class _InAttenuation:
    mean: Tensor
    std: Tensor | None


def write_volume(folder: Path, run: VolumeRun) -> None:
    """Write all files of a run to an existing empty folder; ``run.json`` lists them with their SHA-256."""
    series, hu = run.place.series, run.hu
    result = _InAttenuation(
        torch.from_numpy(run.mean)[:, None], None if run.std is None else torch.from_numpy(run.std)[:, None]
    )
    write_dicom_series(
        result, like=series, folder=folder / "dicom", description=run.summary, details=_details(run),
        options=replace(run.output.dicom, process=_PROCESS, comment=_COMMENT),
    )  # fmt: skip
    write_nifti(series.volume.with_hu(storable_hu(hu)), folder / "mean.nii.gz")
    std_hu = None if run.std is None else run.std / np.float32(series.units.scale)
    if std_hu is not None:
        write_nifti(series.volume.with_hu(std_hu), folder / "spread.nii.gz")
    spacing = (series.z_mm, series.pixel_mm, series.pixel_mm)
    figure = planes_figure(hu, spacing, title=run.summary, note=f"{NOTICE}.")
    picture = save_png(figure, folder / "planes.png", comment=NOTICE)
    record = volume_record(run)
    shared = {key: value for key, value in record.items() if key != "source"}
    shared["settings"] = {k: v for k, v in record["settings"].items() if k not in ("prior", "htransform", "models")}
    shown = Shown(
        title="reconstruction", mean=storable_hu(hu), std=std_hu, unit="HU", spacing_zyx=spacing,
        affine=series.volume.affine,
    )  # fmt: skip
    report = Report(
        title=run.summary, figures={"Middle planes": picture}, warnings=[UNVERIFIED, *run.warnings],
        provenance=shared, notice=NOTICE, view=view_of(shown),
    )  # fmt: skip
    write_html(folder / "report.html", report)
    kept = shared if run.output.deidentify else record
    kept["files"] = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    write_text(folder / RUN_RECORD, json.dumps(kept, indent=2, allow_nan=False) + "\n")


def volume_record(run: VolumeRun) -> dict[str, Any]:
    """Everything that is needed to repeat a run, as plain values; ``source`` may tell the patient."""
    series = run.place.series
    return {
        "program": PROGRAM,
        "notice": NOTICE,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "source": {"series_uid": series.series_uid, "slice_uids": list(series.slice_uids)},
        "notes": list(run.place.notes),
        "warnings": list(run.warnings),
        "settings": run.settings,
        "scan": run.scan,
        "hounsfield": series.units.to_dict(),
        "reconstruction": run.record,
    }


def _details(run: VolumeRun) -> str:
    scan = run.scan
    spot = scan["flying_focal_spot"] or "no flying focal spot"
    return (
        f"{scan['views']} views of {scan['detectors'][0]} x {scan['detectors'][1]} elements, "
        f"pitch {scan['pitch']:.3g}, {spot}; water {run.place.series.units.mu_water:g} / mm; "
        f"seed {run.settings['seed']}"
    )
