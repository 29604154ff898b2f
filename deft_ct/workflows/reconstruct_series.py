"""The main job from end to end: a CT series in, sparse views simulated, reconstructions, metrics and pictures out."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.scan import FULL_DEGREES, Scan
from deft_ct.io import Series, read_dicom_series, write_dicom_series
from deft_ct.io.dicom_write import is_own_output
from deft_ct.io.nifti import write_nifti
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor, method_class, spelling
from deft_ct.networks.precision import Precision
from deft_ct.operators import PoissonNoise
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.problems.ct import nearest_preset
from deft_ct.problems.ct_metrics import evaluate
from deft_ct.problems.ct_null_space import unmeasured_map_hu
from deft_ct.reconstruction import Reconstruction
from deft_ct.reconstructor import Reconstructor
from deft_ct.report import FOOTER, Row, comparison_figure, metrics_json, panel_figure, save_png, write_html
from deft_ct.runtime.atomic import atomic_folder, check_writable

RUN_RECORD = "run.json"
_OWN_FILES = frozenset(
    {RUN_RECORD, "comparison.png", "report.html", "mean.nii.gz", "spread.nii.gz", "unmeasured.nii.gz", "unmeasured.png"}
)
_GEOMETRIES: dict[str, type[ParallelGeometry | FanGeometry]] = {"parallel": ParallelGeometry, "fan": FanGeometry}


@dataclass(frozen=True, kw_only=True)
class SparseView:
    """What is simulated and how it is reconstructed.

    Args:
        method: whose result is written; a name of :func:`deft_ct.methods.registry.methods`.
        compare: methods that are run beside it, for the figure and the table.
        views: equally spaced views.
        photons: per detector element and view, before the patient.
        geometry: ``"parallel"`` or ``"fan"`` (flat detector, distances of a clinical scanner).
        degrees: angular range of the views; half a turn (parallel) or a full one (fan) when None.
        start: angle of the first view in degrees, from 0 to below 360.
        options: method -> fields of its configuration; they go before its preset, see ``load_reconstructor``.
        samples: posterior samples of every slice.
        seed: of noise and sampling; each slice's randomness depends on it and on the slice's SOPInstanceUID.
        size: slices are averaged down to this many pixels a side (that of the prior) before anything else.
        refine: the data are simulated on a grid this many times finer than that of the reconstruction.
        data_range_hu: of PSNR and SSIM.
        device: where to compute.
        precision: of the network evaluations, see ``load_reconstructor``.

    Raises:
        ValueError: a value is out of range, or a method is unknown.
    """

    method: str = "deft"
    compare: tuple[str, ...] = ("fbp", "tv")
    views: int = 60
    photons: float = 1e5
    geometry: str = "parallel"
    degrees: float | None = None
    start: float = 0.0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: int = 4
    seed: int = 0
    size: int = 256
    refine: int = 2
    data_range_hu: float = 2000.0
    device: str = "cpu"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for name in self.methods:
            method_class(name)
        for name in ("views", "samples", "size", "refine"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (math.isfinite(self.photons) and self.photons > 0):
            raise ValueError(f"photons must be a positive number, got {self.photons}")
        if self.geometry not in _GEOMETRIES:
            raise ValueError(f"geometry must be one of {', '.join(_GEOMETRIES)}, got {self.geometry!r}")
        if idle := sorted(set(self.options) - set(self.methods)):
            raise ValueError(f"there are options for {', '.join(idle)}, which is not among the methods")
        _ = self.scan  # raises ValueError where the arc is impossible
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device {self.device} was asked for, but torch sees no CUDA device; use cpu")

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method once, the main one last."""
        return (*(name for name in dict.fromkeys(self.compare) if name != self.method), self.method)

    @property
    def scan(self) -> Scan:
        """What is simulated, without the size of the slices."""
        degrees = FULL_DEGREES[self.geometry] if self.degrees is None else self.degrees
        return Scan(views=self.views, photons=self.photons, geometry=self.geometry, degrees=degrees, start=self.start)

    def preset(self, method: str) -> str | None:
        """The shipped preset of a method that suits the scan best; None for slices of a size that none is tuned for."""
        return nearest_preset(method, self.scan) if self.size == 256 else None

    @property
    def summary(self) -> str:
        """One line for titles and headers."""
        return f"{self.views} {self.geometry} views{self.scan.arc}, {self.photons:,.0f} photons"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What came out.

    Attributes:
        folder: the written results.
        rows: metrics of every method, the main one last.
        notes: what reading the series left out or found unusual.
    """

    folder: Path
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def reconstruct_series(
    source: str | Path,
    out: str | Path,
    settings: SparseView | None = None,
    *,
    series_uid: str | None = None,
    prior: str | Path | None = None,
    htransform: str | Path | None = None,
    models: Mapping[str, str | Path] | None = None,
    overwrite: bool = False,
    parametric_map: bool = False,
    unmeasured_map: bool = False,
    progress: bool = False,
) -> Run:
    """Simulate a sparse-view scan of a CT series, reconstruct it and write everything to one folder.

    The folder holds ``dicom/mean`` and ``dicom/spread`` (derived series), ``mean.nii.gz`` and ``spread.nii.gz``,
    ``comparison.png``, ``report.html`` and ``run.json``. It appears when all of it is complete, or not at all.

    Args:
        source: folder, zip archive, DICOMDIR or file of the series.
        out: folder for the results; new or empty, and apart from the source.
        settings: scan and methods; the defaults when None.
        series_uid: which series, where there are several.
        prior: path or name of a diffusion prior; the shipped one when None.
        htransform: path or name of an h-transform; the shipped one when None.
        models: supervised method -> path or name of its trained model; the shipped one where left out.
        overwrite: replace a folder with an earlier result.
        parametric_map: write the spread as DICOM Parametric Map, too.
        unmeasured_map: write ``unmeasured.nii.gz`` and ``unmeasured.png``, too: where and how much of the result of
            the main method was not measured (see ``evaluation.null_space``); some hundreds of projections of every
            slice.
        progress: show progress bars.

    Returns:
        Where the results are, and the metrics.

    Raises:
        ValueError: unusable input (see :func:`deft_ct.io.read_dicom_series`), or slices that ``size`` does not divide.
        FileNotFoundError: the source, or a network, is not there.
        FileExistsError: the output folder is not empty.
        PermissionError: it cannot be written.
    """
    settings = settings or SparseView()
    target = check_writable(out, overwrite=overwrite, source=source)
    # Everything that can fail fails before the long work: networks first, then the input.
    presets = {name: preset for name in settings.methods if (preset := settings.preset(name)) is not None}
    solvers = {
        name: load_reconstructor(
            name, prior=prior, htransform=htransform, model=(models or {}).get(name), preset=presets.get(name),
            device=settings.device, precision=settings.precision, **settings.options.get(name, {}),
        )
        for name in settings.methods
    }  # fmt: skip
    series = at_size(read_dicom_series(source, series_uid=series_uid), settings.size)
    measurement = simulated_measurement(series, settings)
    truth = series.attenuation(nonnegative=True).to(settings.device)
    y = measurement.simulate(truth, seed=settings.seed, image_ids=series.slice_uids, refine=settings.refine)

    results = {
        name: _reconstruct(solver, y, measurement, series, settings, progress) for name, solver in solvers.items()
    }
    truth_hu = series.units.to_hu(truth.cpu())[:, 0].numpy()
    rows = tuple(
        Row(
            method=label(result),
            metrics=evaluate(hu_of(result), truth_hu, data_range_hu=settings.data_range_hu),
            seconds_per_slice=result.provenance["seconds_per_image"],
        )
        for result in results.values()
    )
    record = _record(series, settings, measurement, results, rows)
    unmeasured = _unmeasured_hu(results[settings.method], y, measurement) if unmeasured_map else None
    with atomic_folder(target, overwrite=overwrite, is_own=_is_own_file) as work:
        _write(work, series, settings, results, truth_hu, rows, record, unmeasured, parametric_map=parametric_map)
    return Run(folder=target, rows=rows, notes=(*series.notes, *(f"{name}: preset {p}" for name, p in presets.items())))


def at_size(series: Series, size: int) -> Series:
    """A series with slices of ``size`` x ``size`` pixels, by averaging blocks of pixels.

    Raises:
        ValueError: the slices are not square, or ``size`` does not divide their side.
    """
    rows, columns = series.image_shape
    if rows != columns or rows % size:
        raise ValueError(
            f"slices of {rows} x {columns} pixels cannot be averaged down to {size} x {size}: expected square slices "
            f"whose side is a multiple of {size}; crop or pad the series"
        )
    return series if rows == size else series.resampled(rows // size)


def simulated_measurement(series: Series, settings: SparseView) -> Measurement:
    """The scan that is simulated of a series."""
    geometry = settings.scan.on_arc(_GEOMETRIES[settings.geometry].for_volume(series, settings.views))
    noise = PoissonNoise(photons=settings.photons)
    return Measurement(RayTransform(geometry), noise, units=series.units).to(settings.device)


def label(result: Reconstruction) -> str:
    """The name of a method in figures and tables; that of a sampling method says that it is a mean."""
    name = spelling(str(result.provenance["method"]))
    return name if result.std is None else f"{name} mean"


def hu_of(result: Reconstruction) -> NDArray[np.float32]:
    """The reconstruction as ``(Z, H, W)`` HU."""
    hu: NDArray[np.float32] = result.in_units.mean.detach().cpu().numpy()[:, 0]
    return hu


def _reconstruct(
    solver: Reconstructor, y: Tensor, measurement: Measurement, series: Series, settings: SparseView, progress: bool
) -> Reconstruction:
    count = settings.samples if solver.name == settings.method else 1
    result = solver.reconstruct(
        y, measurement, num_samples=count, seed=settings.seed, image_ids=series.slice_uids, progress=progress
    )
    std = None if result.std is None else result.std.cpu()
    return replace(result, mean=result.mean.cpu(), std=std, samples=None)


def _unmeasured_hu(result: Reconstruction, y: Tensor, measurement: Measurement) -> NDArray[np.float32]:
    """``(Z, H, W)``."""
    hu: NDArray[np.float32] = unmeasured_map_hu(result.mean.to(y), y, measurement).cpu().numpy()[:, 0]
    return hu


def _write(
    folder: Path,
    series: Series,
    settings: SparseView,
    results: dict[str, Reconstruction],
    truth_hu: NDArray[np.float32],
    rows: tuple[Row, ...],
    record: dict[str, Any],
    unmeasured: NDArray[np.float32] | None,
    *,
    parametric_map: bool,
) -> None:
    main = results[settings.method]
    about = f"{settings.method.upper()} {settings.views} views{settings.scan.arc}"
    calibrated = bool((main.provenance.get("spread") or {}).get("calibrated"))
    kind = "" if main.std is None else f", {'calibrated' if calibrated else 'uncalibrated'} spread"
    count = main.provenance["num_samples"]
    details = f"{settings.summary}; {count} samples{kind}; seed {settings.seed}; {_hashes(main)}"
    write_dicom_series(
        main, like=series, folder=folder / "dicom", description=about, details=details, parametric_map=parametric_map
    )
    write_nifti(series.volume.with_hu(hu_of(main)), folder / "mean.nii.gz")
    spread = None if main.in_units.std is None else main.in_units.std.numpy()[:, 0]
    if spread is not None:
        write_nifti(series.volume.with_hu(spread), folder / "spread.nii.gz")
    columns = {label(result): hu_of(result) for result in results.values()}
    figure = comparison_figure(
        truth_hu, columns, spread, data_range_hu=settings.data_range_hu, title=settings.summary, calibrated=calibrated
    )
    pictures = {"Middle slice": save_png(figure, folder / "comparison.png")}
    if unmeasured is not None:
        write_nifti(series.volume.with_hu(unmeasured), folder / "unmeasured.nii.gz")
        middle = len(unmeasured) // 2
        maps = {"not measured\nlocal RMS": unmeasured[middle]}
        if spread is not None:
            maps = {f"{'calibrated' if calibrated else 'uncalibrated'} spread": spread[middle], **maps}
        figure = panel_figure(
            truth_hu[middle], {name: column[middle] for name, column in columns.items()}, maps,
            errors_of=(label(main),), data_range_hu=settings.data_range_hu, title=settings.summary,
        )  # fmt: skip
        pictures["Middle slice: what the scan did not measure"] = save_png(figure, folder / "unmeasured.png")
    title = f"{settings.method.upper()}, {settings.summary}"
    write_html(folder / "report.html", title=title, figures=pictures, rows=rows, provenance=record)
    (folder / RUN_RECORD).write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _record(
    series: Series,
    settings: SparseView,
    measurement: Measurement,
    results: dict[str, Reconstruction],
    rows: tuple[Row, ...],
) -> dict[str, Any]:
    packages = ("deft-ct", "torch", "numpy", "scipy", "pydicom", "nibabel", "scikit-image", "matplotlib")
    return {
        "program": "deft-ct",
        "notice": FOOTER,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}},
        "source": {"series_uid": series.series_uid, "slice_uids": list(series.slice_uids), "notes": list(series.notes)},
        "settings": asdict(settings),
        "measurement": measurement.describe(),
        "data_range_hu": settings.data_range_hu,
        "reconstructions": {name: result.provenance for name, result in results.items()},
        "metrics": metrics_json(rows),
    }


def _hashes(result: Reconstruction) -> str:
    found = {key: str(value)[:12] for key, value in result.provenance.items() if key.endswith("_sha256")}
    return ", ".join(f"{key.removesuffix('_sha256')} {value}" for key, value in found.items()) or "no networks"


def _is_own_file(path: Path) -> bool:
    return path.name in _OWN_FILES or is_own_output(path)
