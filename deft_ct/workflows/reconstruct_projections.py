"""From a folder of helical raw data in DICOM-CT-PD to a DICOM volume in HU."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.ldct_geometry import helical_scan
from deft_ct.datasets.ldct_projection import HelicalProjections, read_projections
from deft_ct.io.dicom_write import check_derivable
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.classical.ct_fbp import FBP
from deft_ct.methods.registry import NetworkChoice, method_class
from deft_ct.operators.ct import RayTransform
from deft_ct.operators.ct.helical_fbp import helical_fbp
from deft_ct.operators.ct.helical_transform import HelicalTransform, covering_grid, views_through
from deft_ct.operators.ct.helix import HelicalScan, VolumeGrid
from deft_ct.operators.ct.helix_orientation import row_order_evidence
from deft_ct.operators.ct.helix_rebinning import rebin_slices
from deft_ct.operators.findings import DataWarning
from deft_ct.operators.noise import NoiseModel, NoNoise, PoissonNoise
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.atomic import atomic_folder, reserve_folder
from deft_ct.runtime.device import check_device
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.machine import versions
from deft_ct.runtime.progress import progress_bar
from deft_ct.workflows.projection_output import VolumeRun, write_volume
from deft_ct.workflows.projection_series import Placement, Slices, place_series
from deft_ct.workflows.series_output import Output, is_own_file

ON_THE_HELIX = ("fbp", "cgls", "sirt", "tikhonov")
"""Methods that by default work on the rays of the helix; every other method gets rebinned slices."""

_WATER = (0.015, 0.03)
"""Attenuation of water in 1/mm between 40 and 200 keV; a header outside of it is in another unit."""

_MISSING = 1e-3


@dataclass(frozen=True, kw_only=True)
class HelixSettings(NetworkChoice):
    """How raw data are reconstructed.

    Args:
        method: a name of :func:`deft_ct.methods.registry.methods`.
        options: fields of its configuration.
        rebin: whether to rebin the helix to parallel-beam slices, for any method of two dimensions. False works on the
            true rays. None does so for the methods of :data:`ON_THE_HELIX` and rebins for the others.
        slices: which slices.
        mu_water: attenuation of water in 1/mm, which has 0 HU; None: that of the files.
        reverse_rows: the rows of the detector count against z, not along it.
        photons: of a ray without attenuation, for statistical weights; 0: none.
        samples: posterior samples of each slice; None for as many as the method needs for a spread.
        seed: of sampling.

    Raises:
        ValueError: a value is out of range, or the method is unknown.
    """

    method: str = "fbp"
    options: Mapping[str, Any] = field(default_factory=dict)
    rebin: bool | None = None
    slices: Slices = field(default_factory=Slices)
    mu_water: float | None = None
    reverse_rows: bool = False
    photons: float = 0.0
    samples: int | None = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        method_class(self.method)
        if self.samples is not None and self.samples < 0:
            raise ValueError(f"samples must be at least 0, got {self.samples}")
        if self.mu_water is not None and not _WATER[0] <= self.mu_water <= _WATER[1]:
            raise ValueError(f"mu_water must lie in {_WATER} 1/mm (water is about 0.02), got {self.mu_water}")
        _ = self.noise  # raises ValueError for a number of photons that is none
        check_device(self.device)

    @property
    def noise(self) -> NoiseModel:
        """The noise of the measurement."""
        return NoNoise() if self.photons == 0 else PoissonNoise(photons=self.photons)

    @property
    def rebinned(self) -> bool:
        """Whether the method gets rebinned slices."""
        return self.method not in ON_THE_HELIX if self.rebin is None else self.rebin

    @property
    def summary(self) -> str:
        """One line for titles."""
        data = "rebinned slices" if self.rebinned else "the helix"
        return f"{self.method.upper()} on {data}"


def reconstruct_projections(
    source: str | Path,
    out: str | Path,
    settings: HelixSettings | None = None,
    *,
    output: Output | None = None,
    progress: bool = False,
) -> VolumeRun:
    """Reconstruct a folder of DICOM-CT-PD projections and write everything to one folder.

    The folder holds ``dicom/mean`` (and ``dicom/spread``), ``mean.nii.gz``, ``planes.png``, ``report.html`` and
    ``run.json``. It appears when all of it is complete, or not at all. **Unverified on a real file.**

    Args:
        source: folder of one series of projections.
        out: folder for the results; new or empty, and apart from the source.
        settings: method and slices; the defaults if None.
        output: optional files; the defaults if None.
        progress: show progress bars.

    Returns:
        What was written.

    Warns:
        DataWarning: HU are not calibrated, the data speak for another order of the rows, slices are incomplete, or
            what the method finds.

    Raises:
        FileNotFoundError: the source or a network does not exist.
        ReadError: the files cannot be used, see :func:`deft_ct.datasets.read_projections`.
        ValueError: the scan is no helix that can be reconstructed, or no slice is complete.
        FileExistsError: the output folder is not empty.
        PermissionError: the output folder cannot be written.
        ImportError: a package is missing that ``output`` or the method needs; the message names the extra.
    """
    settings, output = settings or HelixSettings(), output or Output()
    output.check_raw("raw data")
    with reserve_folder(out, overwrite=output.overwrite, source=source) as target:
        reconstructor = settings.networks().build(settings.method, settings.options)
        projections = read_projections(source, reverse_rows=settings.reverse_rows, progress=progress)
        scan = helical_scan(projections)
        units, texts = calibration(projections, settings.mu_water)
        grid = settings.slices.grid(scan, Path(source))
        place = place_series(projections, grid, units, Path(source))
        check_derivable(place.series, output.dicom)
        texts += _row_order(projections, scan)
        _warn(texts)
        task = _Task(reconstructor, projections.projections.to(settings.device), scan, grid, place, units, settings)
        mean, std, record = _rebinned(task, progress) if settings.rebinned else _on_the_helix(task, progress)
        texts += [f"{finding['name']}: {finding['text']}" for finding in record["warnings"]]
        run = VolumeRun(
            folder=target, place=place, mean=place.placed(mean), std=None if std is None else place.placed(std),
            summary=settings.summary, settings=asdict(settings), record=record, scan=describe(projections, scan, grid),
            warnings=tuple(texts), output=output,
        )  # fmt: skip
        with atomic_folder(target, overwrite=output.overwrite, is_own=is_own_file) as work:
            write_volume(work, run)
    return run


def calibration(projections: HelicalProjections, mu_water: float | None) -> tuple[HounsfieldScale, list[str]]:
    """The Hounsfield scale of raw data: water as given, or as the files say, or 0.02 / mm with a warning.

    Air has no attenuation: line integrals are relative to a scan of air.
    """
    water = projections.mu_water if mu_water is None else mu_water
    if water is None:
        default = HounsfieldScale().mu_water
        text = f"HU are not calibrated: the files have no attenuation of water, {default} / mm is taken"
        return HounsfieldScale(mu_water=default, mu_air=0.0), [text]
    if not _WATER[0] <= water <= _WATER[1]:
        return HounsfieldScale(mu_water=water, mu_air=0.0), [
            f"HU may be wrong: the attenuation of water in the files, {water:g} / mm, is not that of a CT scan"
        ]
    return HounsfieldScale(mu_water=water, mu_air=0.0), []


def describe(projections: HelicalProjections, scan: HelicalScan, grid: VolumeGrid) -> dict[str, Any]:
    """Scan and voxels, JSON-ready."""
    return {
        "views": scan.data_shape[0], "detectors": list(scan.detectors), "detector_mm": list(scan.detector_mm),
        "turns": projections.turns, "views_per_turn": scan.views_per_turn, "table_feed_mm": projections.table_feed_mm,
        "pitch": abs(projections.table_feed_mm) / scan.collimation_mm,
        "radius_mm": float(scan.radius_mm.mean()), "source_to_detector_mm": scan.source_to_detector_mm,
        "flying_focal_spot": projections.flying_focal_spot, "mu_water_in_files_per_mm": projections.mu_water,
        "image_shape": list(grid.image_shape), "voxel_zyx_mm": list(grid.voxel_zyx), "middle_z_mm": grid.z_mm,
    }  # fmt: skip


@dataclass(frozen=True)
class _Task:
    reconstructor: Reconstructor
    data: Tensor
    scan: HelicalScan
    grid: VolumeGrid
    place: Placement
    units: HounsfieldScale
    settings: HelixSettings


_Result = tuple[np.ndarray, np.ndarray | None, dict[str, Any]]


def _rebinned(task: _Task, progress: bool) -> _Result:
    y, geometry, missing = rebin_slices(task.data, task.scan, task.grid)
    incomplete = _incomplete(missing)
    measurement = Measurement(RayTransform(geometry), task.settings.noise, units=task.units).to(task.settings.device)
    uids = list(task.place.series.slice_uids)
    result = task.reconstructor.reconstruct(
        y, measurement, num_samples=task.settings.samples, seed=task.settings.seed,
        image_ids=uids[::-1] if 0 in task.place.flipped else uids, progress=progress,
    )  # fmt: skip
    std = None if result.std is None else result.std[:, 0].cpu().numpy()
    record = {**result.provenance, "warnings": [*result.provenance["warnings"], *incomplete]}
    return result.mean[:, 0].cpu().numpy(), std, record


def _on_the_helix(task: _Task, progress: bool) -> _Result:
    if isinstance(task.reconstructor, FBP):
        return _filtered(task, progress)
    used = views_through(task.scan, task.grid)
    scan = task.scan.part(used)
    grid, below = covering_grid(scan, task.grid)
    measurement = Measurement(HelicalTransform(scan, grid), task.settings.noise, units=task.units)
    result = task.reconstructor.reconstruct(
        task.data[used][None, None].contiguous(), measurement, num_samples=task.settings.samples,
        seed=task.settings.seed, image_ids=[task.place.series.series_uid], progress=progress,
    )  # fmt: skip
    kept = slice(below, below + task.grid.image_shape[0])
    std = None if result.std is None else result.std[0, 0, kept].cpu().numpy()
    return result.mean[0, 0, kept].cpu().numpy(), std, result.provenance


def _filtered(task: _Task, progress: bool) -> _Result:
    config, began = task.reconstructor.config, time.perf_counter()
    parts = max(1, round(task.scan.views_per_turn / 2))
    with progress_bar("back-projection", parts, enabled=progress) as tick:
        image = helical_fbp(task.data, task.scan, task.grid, config.filter, config.cutoff, tick)
    incomplete = _incomplete(image.missing)
    record = {
        "method": "fbp", "algorithm": "weighted filtered back-projection of the helix", "config": asdict(config),
        "images": len(image.volume), "warnings": incomplete, "device": str(task.data.device), "versions": versions(),
        "seconds_per_image": (time.perf_counter() - began) / len(image.volume),
    }  # fmt: skip
    return image.volume.cpu().numpy(), None, record


def _row_order(projections: HelicalProjections, scan: HelicalScan) -> list[str]:
    evidence = row_order_evidence(projections.projections, scan)
    if not evidence.speaks_for_reversed:
        return []
    return [
        f"rays of the same lines differ by {evidence.as_given:.2g}, and by {evidence.reversed:.2g} with the detector "
        "rows in the other order: slices are probably mixed up, try the other order (--raw rows=reversed)"
    ]


def _incomplete(missing: Tensor) -> list[dict[str, str]]:
    """A finding where rays of the slices were not measured, also as a warning."""
    worst = float(missing.max())
    if worst <= _MISSING:
        return []
    text = f"up to {worst:.1%} of the rays of a slice were not measured: the table moves too fast for the detector"
    _warn([f"missing rays: {text}"])
    return [{"name": "missing rays", "text": text}]


def _warn(texts: list[str]) -> None:
    for text in texts:
        warnings.warn(text, DataWarning, stacklevel=3)
