"""Write the reconstruction of a CT series: DICOM, NIfTI, pictures, a report and a record, in one folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.ct.hounsfield import storable_hu
from deft_ct.io import Chosen, DicomOptions, Series, write_dicom_series
from deft_ct.io.deidentify import NO_DATE
from deft_ct.io.dicom_write import check_derivable, is_own_output
from deft_ct.io.nifti import write_nifti
from deft_ct.methods.registry import method_title
from deft_ct.reconstruction import Reconstruction
from deft_ct.report import (
    FOOTER,
    FigureStyle,
    Report,
    Row,
    comparison_figure,
    metrics_json,
    panel_figure,
    save_png,
    write_html,
)
from deft_ct.runtime.atomic import write_text
from deft_ct.workflows.result_view import series_view

if TYPE_CHECKING:
    from deft_ct.workflows.reconstruct_series import SparseView

RUN_RECORD = "run.json"
PROGRAM = "deft-ct"
_FIRST_FURTHER = 10
"""SeriesNumber of the first further series, after that of the mean."""
_PACKAGES = ("deft-ct", "torch", "numpy", "scipy", "pydicom", "nibabel", "scikit-image", "matplotlib")


@dataclass(frozen=True, kw_only=True)
class Output:
    """Optional files, and whether an earlier result may be replaced.

    Args:
        overwrite: replace a folder with an earlier result.
        parametric_map: also write the posterior standard deviation as a DICOM Parametric Map.
        compared: also write the other methods, as derived series ``dicom/NAME`` and as ``NAME.nii.gz``.
        samples: also write each posterior sample, as derived series ``dicom/sample_001`` and as ``sample_001.nii.gz``.
        unmeasured_map: also write ``unmeasured.nii.gz`` and ``unmeasured.png``, the part of the main result that the
            scan did not measure (see ``evaluation.null_space``). It takes some hundred projections for each slice.
        deidentify: drop or replace what identifies the patient, see :class:`deft_ct.io.DicomOptions`. ``run.json`` then
            holds no UIDs, file names or paths.
        allow_burned_in: de-identify images, too, that are known to show text.
    """

    overwrite: bool = False
    parametric_map: bool = False
    compared: bool = False
    samples: bool = False
    unmeasured_map: bool = False
    deidentify: bool = False
    allow_burned_in: bool = False

    def check_raw(self, what: str) -> None:
        """Refuse what is for simulated scans alone.

        Args:
            what: what is reconstructed instead, for the message.

        Raises:
            ValueError: something of it is asked for.
        """
        for name in ("unmeasured_map", "compared", "samples"):
            if getattr(self, name):
                raise ValueError(f"{name} is for simulated scans: leave it out for {what}")

    @property
    def dicom(self) -> DicomOptions:
        """How the derived series are written."""
        return DicomOptions(
            parametric_map=self.parametric_map, deidentify=self.deidentify, allow_burned_in=self.allow_burned_in
        )


@dataclass(frozen=True)
class MiddleSlice:
    """The slice that pictures show.

    Attributes:
        index: its number in the series.
        truth_hu: ``(H, W)``.
        columns: title of each method -> ``(H, W)`` HU, the main one last.
    """

    index: int
    truth_hu: NDArray[np.float32]
    columns: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class FinishedRun:
    """Everything that is written.

    Attributes:
        series: with the pixels of the reconstruction.
        settings: scan and methods.
        main: the result that is written as DICOM and NIfTI, on the CPU.
        records: method -> provenance, the main one last.
        middle: for the pictures.
        rows: metrics of every method, the main one last.
        output: optional files.
        mean_of: reads the mean of a method, ``(Z, H, W)`` in 1/mm; the other volumes are not kept in memory.
        sample_of: reads a posterior sample likewise, by its number from 0; None unless they were kept.
        unmeasured_hu: ``(Z, H, W)`` part of the main result that was not measured, in HU; None unless it is wanted.
        chosen: what was asked for of the source.
    """

    series: Series
    settings: SparseView
    main: Reconstruction
    records: Mapping[str, Mapping[str, Any]]
    middle: MiddleSlice
    rows: tuple[Row, ...]
    mean_of: Callable[[str], NDArray[np.float32]]
    sample_of: Callable[[int], NDArray[np.float32] | None]
    output: Output = field(default_factory=Output)
    unmeasured_hu: NDArray[np.float32] | None = None
    chosen: Chosen | None = None

    @property
    def calibrated(self) -> bool:
        """Whether the posterior standard deviation of the main result is calibrated."""
        return bool((self.main.provenance.get("spread") or {}).get("calibrated"))

    @property
    def std_hu(self) -> NDArray[np.float32] | None:
        """``(Z, H, W)`` posterior standard deviation in HU, or None."""
        std = self.main.in_units.std
        return None if std is None else std.numpy()[:, 0]

    @property
    def shown_hu(self) -> NDArray[np.float32]:
        """``(Z, H, W)`` the main result in HU as every file shows it."""
        return storable_hu(hu_of(self.main))

    @property
    def reference_hu(self) -> NDArray[np.float32]:
        """``(Z, H, W)`` what was scanned, in HU: the slices of the series, nothing below vacuum."""
        hu: NDArray[np.float32] = np.maximum(self.series.hu, np.float32(self.series.units.to_hu(0.0)))
        return hu

    def compared_hu(self, name: str) -> NDArray[np.float32]:
        """``(Z, H, W)`` the mean of a method in HU, read anew."""
        hu: NDArray[np.float32] = self.series.units.to_hu(self.mean_of(name))
        return storable_hu(hu)

    def sample_hu(self, number: int) -> NDArray[np.float32]:
        """``(Z, H, W)`` a posterior sample in HU, read anew, by its number from 0.

        Raises:
            ValueError: there are no samples.
        """
        sample = self.sample_of(number)
        if sample is None:
            raise ValueError(f"{self.settings.method} draws no samples: leave them out of what is written")
        hu: NDArray[np.float32] = self.series.units.to_hu(sample)
        return storable_hu(hu)


def method_label(name: str, *, has_std: bool) -> str:
    """The name of a method in figures and tables; that of a sampling method ends in "mean"."""
    title = method_title(name)
    return f"{title} mean" if has_std else title


def hu_of(result: Reconstruction) -> NDArray[np.float32]:
    """The reconstruction as ``(Z, H, W)`` HU."""
    hu: NDArray[np.float32] = result.in_units.mean.detach().cpu().numpy()[:, 0]
    return hu


def write_run(folder: Path, run: FinishedRun) -> None:
    """Write all files of a run to an existing empty folder; ``run.json`` lists them with their SHA-256.

    Args:
        folder: where to write.
        run: what to write.
    """
    _write_dicom(folder, run)
    volume = run.series.volume
    write_nifti(volume.with_hu(run.shown_hu), folder / "mean.nii.gz")
    if (std_hu := run.std_hu) is not None:
        write_nifti(volume.with_hu(std_hu), folder / "spread.nii.gz")
        del std_hu
    if run.unmeasured_hu is not None:
        write_nifti(volume.with_hu(run.unmeasured_hu), folder / "unmeasured.nii.gz")
    record = run_record(run)
    shared = mailable(record)
    title = f"{run.settings.method.upper()}, {run.settings.summary}"
    report = Report(
        title=title, figures=_write_pictures(folder, run), rows=run.rows, warnings=warnings_of(run), provenance=shared,
        view=series_view(run),
    )  # fmt: skip
    write_html(folder / "report.html", report)
    kept = shared if run.output.deidentify else record
    kept["files"] = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    write_text(folder / RUN_RECORD, json.dumps(kept, indent=2, allow_nan=False) + "\n")


def warnings_of(run: FinishedRun) -> list[str]:
    """What was found wrong with the data or with a result, each sentence once, with the methods that it is about."""
    about: dict[str, list[str]] = {str(finding): list(run.records) for finding in run.series.findings}
    for name, record in run.records.items():
        for finding in record["warnings"]:
            about.setdefault(f"{finding['name']}: {finding['text']}", []).append(name)
    return [text if len(names) == len(run.records) else f"{', '.join(names)}: {text}" for text, names in about.items()]


def _write_dicom(folder: Path, run: FinishedRun) -> None:
    """The derived series of the main result, and those of other methods and of samples that are wanted, with NIfTI."""
    settings, main, options = run.settings, run.main, run.output.dicom
    like = check_derivable(run.series, options)
    if options.deidentify:  # once, so that all series are of one patient and one study
        options = replace(options, deidentify=False, created=NO_DATE)
    kind = "" if main.std is None else f", {_calibration(run)} spread"
    predicted = (main.provenance.get("spread") or {}).get("by") == "network"
    count = "mean" if predicted else f"{main.provenance['num_samples']} samples"
    scanned = f"{settings.views} views{settings.scan.arc}"
    about = "; ".join((*(f"warning: {finding.name}" for finding in run.series.findings), *run.series.changes))
    details = f"{settings.summary}; {count}{kind}; seed {settings.seed}; {_hashes(main.provenance)}"
    write_dicom_series(
        main, like=like, folder=folder / "dicom", description=f"{settings.method.upper()} {scanned}",
        details="; ".join(filter(None, (details, about))), options=options,
    )  # fmt: skip
    first = options.series_number_offset + _FIRST_FURTHER
    for number, one in enumerate(_further(run)):
        hu = one.read()
        hashes = _hashes(run.records[one.method])
        write_dicom_series(
            hu, like=like, folder=folder / "dicom" / one.name, description=f"{one.title} {scanned}",
            details="; ".join(filter(None, (f"{settings.summary}; seed {settings.seed}; {hashes}", about))),
            options=replace(options, parametric_map=False, series_number_offset=first + number),
        )  # fmt: skip
        write_nifti(run.series.volume.with_hu(hu), folder / f"{one.name}.nii.gz")


@dataclass(frozen=True)
class _Further:
    """A volume beside the main result: its name in files, its title, its method, and what reads it in HU."""

    name: str
    title: str
    method: str
    read: Callable[[], NDArray[np.float32]]


def _further(run: FinishedRun) -> list[_Further]:
    main, found = run.settings.method, []
    if run.output.compared:
        others = [name for name in run.records if name != main]
        found += [_Further(name, name.upper(), name, partial(run.compared_hu, name)) for name in others]
    if run.output.samples:
        count = int(run.main.provenance["num_samples"])
        found += [
            _Further(f"sample_{n + 1:03d}", f"{main.upper()} sample {n + 1}/{count}", main, partial(run.sample_hu, n))
            for n in range(count)
        ]
    return found


def _write_pictures(folder: Path, run: FinishedRun) -> dict[str, Path]:
    """Heading -> the picture, for the report."""
    settings, middle = run.settings, run.middle
    std = None if run.std_hu is None else run.std_hu[middle.index]
    figure = comparison_figure(
        middle.truth_hu, middle.columns, std, calibrated=run.calibrated,
        style=FigureStyle(data_range_hu=settings.data_range_hu, title=settings.summary),
    )  # fmt: skip
    pictures = {"Middle slice": save_png(figure, folder / "comparison.png")}
    if run.unmeasured_hu is not None:
        maps = {"not measured\nlocal RMS": run.unmeasured_hu[middle.index]}
        if std is not None:
            maps = {f"{_calibration(run)} spread": std, **maps}
        figure = panel_figure(
            middle.truth_hu, middle.columns, maps, errors_of=(run.rows[-1].method,),
            data_range_hu=settings.data_range_hu, title=settings.summary,
        )  # fmt: skip
        pictures["Middle slice: what the scan did not measure"] = save_png(figure, folder / "unmeasured.png")
    return pictures


def run_record(run: FinishedRun) -> dict[str, Any]:
    """Everything that is needed to repeat a run, as plain values. It holds UIDs of the source: see :func:`mailable`."""
    series = run.series
    return {
        "program": PROGRAM,
        "notice": FOOTER,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        "source": {
            "path": str(series.source),
            "chosen": None if run.chosen is None else asdict(run.chosen),
            "series_uid": series.series_uid,
            "slice_uids": list(series.slice_uids),
            "notes": list(series.notes),
            "changes": list(series.changes),
            "warnings": [finding.to_dict() for finding in series.findings],
        },
        "settings": asdict(run.settings),
        "measurement": run.main.measurement.describe(),
        "data_range_hu": run.settings.data_range_hu,
        "reconstructions": {name: dict(record) for name, record in run.records.items()},
        "metrics": metrics_json(run.rows),
    }


def mailable(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what may tell the patient: UIDs, headers, and names of files and folders.

    The networks that were used are still told by their hashes.
    """
    settings = {k: v for k, v in record["settings"].items() if k not in ("prior", "htransform", "models")}
    source = record["source"]
    safe = {"slices": len(source["slice_uids"]), "changes": source["changes"], "warnings": source["warnings"]}
    return {**record, "source": safe, "settings": settings}


def is_own_file(path: Path) -> bool:
    """Whether :func:`write_run` wrote a file, so that it may be replaced.

    It did if ``run.json`` beside it lists the file with its present content, or if it is DICOM of this program.
    """
    try:
        record = json.loads((path.parent / RUN_RECORD).read_text(encoding="utf-8"))
        files = record["files"] if record["program"] == PROGRAM else {}
    except (OSError, ValueError, KeyError, TypeError):
        files = {}
    if files and path.name == RUN_RECORD:
        return True
    return (path.name in files and files[path.name] == file_sha256(path)) or is_own_output(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as ``run.json`` lists it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _calibration(run: FinishedRun) -> str:
    return "calibrated" if run.calibrated else "uncalibrated"


def _hashes(provenance: Mapping[str, Any]) -> str:
    found = {key: str(value)[:12] for key, value in provenance.items() if key.endswith("_sha256")}
    return ", ".join(f"{key.removesuffix('_sha256')} {value}" for key, value in found.items()) or "no networks"
