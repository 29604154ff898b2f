"""The main job from files to files: simulate a sparse-view scan of a CT series, reconstruct it, write everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.scan import FULL_DEGREES, Scan
from deft_ct.ct.square_grid import SquareGrid
from deft_ct.io import Chosen, Series, read_series
from deft_ct.io.dicom_findings import AIR_HU
from deft_ct.io.dicom_write import check_derivable
from deft_ct.io.errors import ReadError
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import NetworkChoice, method_class
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.findings import Finding
from deft_ct.operators.memory import check_memory
from deft_ct.problems.ct import nearest_preset
from deft_ct.problems.ct_metrics import evaluate
from deft_ct.reconstruction import Reconstruction
from deft_ct.reconstructor import Reconstructor
from deft_ct.report import Row
from deft_ct.runtime.atomic import atomic_folder, reserve_folder
from deft_ct.runtime.device import check_device
from deft_ct.runtime.fields import check_fields
from deft_ct.workflows.series_output import FinishedRun, Output, hu_of, is_own_file, label, write_run

_GEOMETRIES: dict[str, type[ParallelGeometry | FanGeometry]] = {"parallel": ParallelGeometry, "fan": FanGeometry}


@dataclass(frozen=True, kw_only=True)
class SparseView(NetworkChoice):
    """The simulated scan and the methods that reconstruct it.

    Args:
        method: the method whose result is written; a name of :func:`deft_ct.methods.registry.methods`.
        compare: further methods for the figure and the table.
        views: number of equally spaced views.
        photons: per detector element and view, before the patient. 0 for noise-free data.
        geometry: ``"parallel"`` or ``"fan"`` (flat detector, distances of a clinical scanner).
        degrees: angular range of the views. None: 180 for parallel beams, 360 for a fan.
        start: angle of the first view in degrees, from 0 to below 360.
        options: method -> fields of its configuration. They override its preset, see ``load_reconstructor``.
        samples: posterior samples of each slice.
        seed: of noise and sampling. The randomness of a slice depends on it and on the SOPInstanceUID of the slice.
        size: side of the reconstructed square in pixels. Larger slices are averaged down to it first, smaller and
            oblong ones are surrounded with air, see :class:`deft_ct.ct.square_grid.SquareGrid`.
        refine: the data are simulated on a grid this many times finer than the reconstruction.
        data_range_hu: data range of PSNR and SSIM in HU.

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

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.methods:
            method_class(name)
        for name in ("views", "samples", "size", "refine"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.geometry not in _GEOMETRIES:
            raise ValueError(f"geometry must be one of {', '.join(_GEOMETRIES)}, got {self.geometry!r}")
        if idle := sorted(set(self.options) - set(self.methods)):
            raise ValueError(f"there are options for {', '.join(idle)}, which is not among the methods")
        _ = self.scan  # raises ValueError if the arc is impossible
        check_device(self.device)

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method once, the main one last."""
        return (*(name for name in dict.fromkeys(self.compare) if name != self.method), self.method)

    @property
    def scan(self) -> Scan:
        """The simulated scan, without the size of the slices."""
        degrees = FULL_DEGREES[self.geometry] if self.degrees is None else self.degrees
        return Scan(
            views=self.views, photons=self.photons or None, geometry=self.geometry, degrees=degrees, start=self.start
        )

    def preset(self, method: str) -> str | None:
        """The shipped preset of a method for the most similar scan; None unless ``size`` is 256, as in tuning."""
        return nearest_preset(method, self.scan) if self.size == 256 else None

    @property
    def summary(self) -> str:
        """One line for titles and headers."""
        dose = f"{self.photons:,.0f} photons" if self.photons else "noise-free"
        return f"{self.views} {self.geometry} views{self.scan.arc}, {dose}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        folder: the written results.
        rows: metrics of every method, the main one last.
        notes: files that were left out of the series, what was done to its slices, and the presets that were used.
        findings: what speaks against the CT numbers of the series.
    """

    folder: Path
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class SimulatedScan:
    """A series and its simulated data.

    Attributes:
        series: with the pixels of the reconstruction.
        measurement: the scan.
        truth: ``(Z, 1, size, size)`` attenuation in 1/mm, with air around slices that are not square.
        y: ``(Z, 1, views, detectors)`` data.
        grid: where the slices of the series lie in the square.
    """

    series: Series
    measurement: Measurement
    truth: Tensor
    y: Tensor
    grid: SquareGrid

    @cached_property
    def truth_hu(self) -> NDArray[np.float32]:
        """``(Z, H, W)`` HU of the slices of the series."""
        hu: NDArray[np.float32] = self.series.units.to_hu(self.grid.cropped(self.truth.cpu()))[:, 0].numpy()
        return hu


def reconstruct_series(
    source: str | Path,
    out: str | Path,
    settings: SparseView | None = None,
    *,
    output: Output | None = None,
    chosen: Chosen | None = None,
    progress: bool = False,
) -> Run:
    """Simulate a sparse-view scan of a CT series, reconstruct it and write everything to one folder.

    The folder holds ``dicom/mean`` and ``dicom/spread`` (derived series), ``mean.nii.gz`` and ``spread.nii.gz``,
    ``comparison.png``, ``report.html`` and ``run.json``. It appears when all of it is complete, or not at all.

    Args:
        source: folder, zip archive, DICOMDIR or file of the series.
        out: folder for the results; new or empty, and apart from the source.
        settings: scan and methods; the defaults if None.
        output: optional files; the defaults if None.
        chosen: which series and phase; the only one if None.
        progress: show progress bars.

    Returns:
        The folder and the metrics.

    Raises:
        ValueError: the input cannot be used (see :func:`deft_ct.io.read_series`), or holds nothing but air.
        FileNotFoundError: the source or a network does not exist.
        FileExistsError: the output folder is not empty.
        PermissionError: the output folder cannot be written.
        InUseError: another process writes to the output folder.
        WriteError: a file cannot be written, for example because the disk is full.
        ImportError: a package is missing that ``output`` asks for; the message names the extra.
    """
    settings, output = settings or SparseView(), output or Output()
    with reserve_folder(out, overwrite=output.overwrite, source=source) as target:
        # Everything that can fail fails before the long work: networks first, then the input.
        presets = {name: preset for name in settings.methods if (preset := settings.preset(name)) is not None}
        networks = settings.networks()
        reconstructors = {
            name: networks.build(name, settings.options.get(name, {}), preset=presets.get(name))
            for name in settings.methods
        }
        series = read_series(source, chosen).fitted(settings.size)
        check_not_air(series)
        check_derivable(series, output.dicom)
        check_memory(
            8 * settings.samples * len(series.slice_uids) * settings.size**2, f"{settings.samples} samples of a series",
            "take fewer samples (--samples)",
        )  # fmt: skip
        scan = simulate_scan(series, settings)
        whole = {name: _reconstruct(one, scan, settings, progress) for name, one in reconstructors.items()}
        results = {name: _cropped(result, scan.grid) for name, result in whole.items()}
        rows = tuple(_row(result, scan.truth_hu, settings) for result in results.values())
        run = FinishedRun(scan, settings, results, rows, output, whole[settings.method].mean)
        with atomic_folder(target, overwrite=output.overwrite, is_own=is_own_file) as work:
            write_run(work, run)
    notes = (*series.notes, *series.changes, *(f"{name}: preset {p}" for name, p in presets.items()))
    return Run(folder=target, rows=rows, notes=notes, findings=series.findings)


def check_not_air(series: Series) -> None:
    """Refuse a series in which there is nothing to reconstruct.

    Raises:
        ReadError: every pixel is as empty as air.
    """
    highest = float(series.hu.max())
    if highest <= AIR_HU[1]:
        raise ReadError(
            series.source,
            f"all {len(series)} slice(s) are air (highest value {highest:g} HU): there is nothing to reconstruct. Are "
            "the CT numbers right, and is it the right series?",
        )


def simulated_measurement(series: Series, settings: SparseView) -> Measurement:
    """The measurement that is simulated for a series; its image is a square of ``settings.size`` pixels."""
    square = _Square((settings.size, settings.size), series.pixel_mm)
    geometry = settings.scan.on_arc(_GEOMETRIES[settings.geometry].for_volume(square, settings.views))
    return Measurement(RayTransform(geometry), settings.scan.noise, units=series.units).to(settings.device)


def simulate_scan(series: Series, settings: SparseView) -> SimulatedScan:
    """Simulate the data of a series."""
    measurement = simulated_measurement(series, settings)
    grid = SquareGrid.around(series.image_shape, series.volume.spacing_mm, settings.size)
    square = torch.from_numpy(grid.padded(series.hu))[:, None]
    truth = series.units.to_attenuation(square).clamp_min(0.0).to(settings.device)
    y = measurement.simulate(truth, seed=settings.seed, image_ids=series.slice_uids, refine=settings.refine)
    return SimulatedScan(series, measurement, truth, y, grid)


@dataclass(frozen=True)
class _Square:
    """What a geometry needs to know of an image."""

    image_shape: tuple[int, int]
    pixel_mm: float


def _reconstruct(
    reconstructor: Reconstructor, scan: SimulatedScan, settings: SparseView, progress: bool
) -> Reconstruction:
    """The result on the CPU, without the samples. Only the main method draws more than one sample."""
    count = settings.samples if reconstructor.name == settings.method else 1
    result = reconstructor.reconstruct(
        scan.y,
        scan.measurement,
        num_samples=count,
        seed=settings.seed,
        image_ids=scan.series.slice_uids,
        progress=progress,
    )
    std = None if result.std is None else result.std.cpu()
    return replace(result, mean=result.mean.cpu(), std=std, samples=None)


def _cropped(result: Reconstruction, grid: SquareGrid) -> Reconstruction:
    """The part of a result that shows the slices of the series."""
    std = None if result.std is None else grid.cropped(result.std)
    return replace(result, mean=grid.cropped(result.mean), std=std)


def _row(result: Reconstruction, truth_hu: NDArray[np.float32], settings: SparseView) -> Row:
    return Row(
        method=label(result),
        metrics=evaluate(hu_of(result), truth_hu, data_range_hu=settings.data_range_hu),
        seconds_per_slice=result.provenance["seconds_per_image"],
    )
