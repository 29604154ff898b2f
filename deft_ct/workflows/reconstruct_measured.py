"""From a file of measured projections of slices to images in 1/mm or HU."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from deft_ct.ct.calibration import WaterAndAir
from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.measured_scan import MeasuredScan, axis_column, read_measured_scan, with_center, with_image
from deft_ct.datasets.scan_description import Centre, ScanDescription
from deft_ct.datasets.sinogram_scan import remove_rings
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import NetworkChoice, method_class
from deft_ct.methods.supervised.model import TrainedReconstructor
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform, align_scan, fbp
from deft_ct.operators.ct.diagnosis import SHIFTED, TRUNCATED_VIEWS
from deft_ct.operators.ct.extrapolation import continue_rows
from deft_ct.operators.ct.photons import estimated_photons
from deft_ct.operators.ct.redundancy import angular_range, missing_fraction
from deft_ct.operators.ct.truncation import truncation
from deft_ct.operators.findings import DataWarning, Finding
from deft_ct.operators.noise import NoiseModel, NoNoise, PoissonNoise
from deft_ct.reconstruction import Reconstruction
from deft_ct.reconstructor import PriorReconstructor, Reconstructor
from deft_ct.runtime.atomic import atomic_folder, reserve_folder
from deft_ct.runtime.device import check_device
from deft_ct.runtime.fields import check_fields
from deft_ct.workflows.measured_output import MeasuredRun, write_measured
from deft_ct.workflows.series_output import Output, file_sha256, is_own_file

Align = Literal["center", "angles", "both"]
Geometry = ParallelGeometry | FanGeometry

ON_A_WIDER_IMAGE = ("cgls", "sirt", "tikhonov", "tv")
"""Methods that get a larger image for truncated data, where the rest of the object can lie."""
WIDER = 1.5
"""Width of this image, in widths of the wanted one."""

_ALIGNED = {
    "center": ("detector_offset_mm",), "angles": ("angles",), "both": ("detector_offset_mm", "angles"),
}  # fmt: skip
_PART = 8
_OFF_CENTER = 0.5
_MISSING = 0.02


@dataclass(frozen=True, kw_only=True)
class MeasuredSettings(NetworkChoice):
    """How measured projections are reconstructed.

    Args:
        method: a name of :func:`deft_ct.methods.registry.methods`.
        options: fields of its configuration.
        scan: what the file does not say; None for files that say everything.
        chosen: first and last slice or frame, from 1; all when None.
        center: detector column of the rotation axis, ``"auto"`` or ``"middle"``; None: as the file says.
        align: what :func:`~deft_ct.operators.ct.align_scan` corrects before the reconstruction; None: nothing.
        rings: remove the stripes of uneven detector elements.
        continue_truncated: reconstruct truncated data as if the object went on beyond the detector.
        size: pixels per side; None: as many as detector elements lie across the image.
        fov_mm: width of the images; None: what the detector sees from all sides.
        slice_mm: distance of the slices; None: as the file says.
        calibration: what water and air are.
        photons: of a ray without attenuation, for statistical weights. 0 for none; None estimates them from the noise.
        samples: posterior samples of each slice; None for as many as the method needs for a spread.
        seed: of sampling.

    Raises:
        ValueError: a value is out of range, the method is unknown, or it needs a Hounsfield scale and gets none.
    """

    method: str = "fbp"
    options: Mapping[str, Any] = field(default_factory=dict)
    scan: ScanDescription | None = None
    chosen: tuple[int, int] | None = None
    center: Centre | None = None
    align: Align | None = None
    rings: bool = False
    continue_truncated: bool = True
    size: int | None = None
    fov_mm: float | None = None
    slice_mm: float | None = None
    calibration: WaterAndAir = field(default_factory=WaterAndAir)
    photons: float | None = None
    samples: int | None = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name, least in (("size", 8), ("samples", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name in ("fov_mm", "slice_mm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be a positive number of mm, got {value}")
        if self.photons is not None and self.photons < 0:
            raise ValueError(f"photons must be positive, or 0 for noise-free data, got {self.photons}")
        if self.needs_scale and not self.calibration.wanted:
            raise ValueError(
                f"{self.method} needs images in HU: give the attenuation of water, --raw mu_water=0.02 (1/mm), or a "
                "place that is water, --raw water=x:y:radius (mm). For objects without water: --raw mu_water=auto"
            )
        check_device(self.device)

    @property
    def needs_scale(self) -> bool:
        """Whether the method has networks, which know images in HU."""
        return issubclass(method_class(self.method), PriorReconstructor | TrainedReconstructor)

    @property
    def summary(self) -> str:
        """One line for titles."""
        return f"{self.method.upper()} of measured projections"


def reconstruct_measured(
    source: str | Path,
    out: str | Path,
    settings: MeasuredSettings | None = None,
    *,
    output: Output | None = None,
    progress: bool = False,
) -> MeasuredRun:
    """Reconstruct a file of measured projections and write everything to one folder.

    The folder holds ``dicom/mean`` (and ``dicom/spread``), ``mean.nii.gz``, ``result.h5``, ``slices.png``,
    ``report.html`` and ``run.json``. It appears when all of it is complete, or not at all.

    Args:
        source: the file, see :func:`deft_ct.datasets.measured_scan.read_measured_scan`.
        out: folder for the results; new or empty.
        settings: method and corrections; the defaults if None.
        output: optional files; the defaults if None.
        progress: show progress bars.

    Returns:
        What was written.

    Warns:
        DataWarning: what is wrong with the data, or with the result.

    Raises:
        FileNotFoundError: the file or a network does not exist.
        ReadError: the file cannot be used.
        ValueError: a centre, image or place of water that does not fit the data.
        FileExistsError: the output folder is not empty.
        PermissionError: the output folder cannot be written.
        ImportError: a package is missing that ``output``, the method or the removal of rings needs.
    """
    settings, output, path = settings or MeasuredSettings(), output or Output(), Path(source)
    output.check_raw("measured projections")
    with reserve_folder(out, overwrite=output.overwrite, source=path) as target:
        reconstructor = settings.networks().build(settings.method, settings.options)
        scan = read_measured_scan(path, settings.scan, settings.chosen)
        task = prepared(scan, settings)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answer = _reconstructed(reconstructor, task, settings, progress)
        texts = _once([*(str(finding) for finding in task.findings), *(str(one.message) for one in caught)])
        for text in texts:
            warnings.warn(text, DataWarning, stacklevel=2)
        run = MeasuredRun(
            folder=target, source=path, sha256=file_sha256(path), scan=replace(scan, sinogram=scan.sinogram[:0]),
            geometry=task.geometry, mean=answer.mean, std=answer.std, units=answer.units, settings=settings,
            notes=(*scan.notes, *task.notes), warnings=texts, corrections={**scan.record, **task.record},
            record=answer.record, output=output,
        )  # fmt: skip
        with atomic_folder(target, overwrite=output.overwrite, is_own=is_own_file) as work:
            write_measured(work, run)
    return run


def _once(texts: list[str]) -> tuple[str, ...]:
    """One sentence of each kind, which stands before the colon: parts of a scan are diagnosed one by one."""
    first: dict[str, str] = {}
    for text in texts:
        name = text.partition(":")[0]
        advice = " (--raw center=auto, or align=center)" if name == SHIFTED else ""
        first.setdefault(name, text + advice)
    return tuple(first.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedScan:
    """Corrected data with the geometry of the images.

    Attributes:
        sinogram: ``(slices, 1, views, detectors)`` line integrals.
        geometry: of the images that are wanted.
        noise: of the data.
        truncated: whether the object is wider than the detector.
        findings: what is wrong with the scan.
        notes: what was corrected, in words.
        record: the same in numbers.
    """

    sinogram: Tensor
    geometry: Geometry
    noise: NoiseModel
    truncated: bool
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    record: dict[str, Any]


def prepared(scan: MeasuredScan, settings: MeasuredSettings) -> PreparedScan:
    """Remove rings, find the centre, align, and look for truncation and noise."""
    notes, record, findings = list[str](), dict[str, Any](), list[Finding]()
    sinogram = scan.sinogram
    if settings.rings:
        clean = np.stack([remove_rings(one) for one in sinogram[:, 0].numpy()])
        change = float(np.abs(clean - sinogram[:, 0].numpy()).mean())
        notes.append(f"stripes of uneven detector elements removed (mean change of a line integral {change:.3g})")
        sinogram, record["ring_removal"] = torch.from_numpy(clean)[:, None], {"mean_change": change}
    scan = replace(scan, sinogram=sinogram)
    center = settings.center if settings.center is not None else _said_center(settings.scan)
    geometry = scan.geometry
    if center is not None:
        geometry, column = with_center(scan, center)
        if center == "auto":
            notes.append(f"rotation axis found at detector column {column:.2f}")
    elif not scan.centered:
        findings += _off_center(scan)
    geometry = with_image(geometry, settings.size, settings.fov_mm)
    if settings.align is not None:
        aligned = align_scan(sinogram, with_image(geometry), _ALIGNED[settings.align])
        moved = np.degrees(aligned.geometry.angle_array - geometry.angle_array)
        record["alignment"] = {
            "what": settings.align, "residual": list(aligned.residual), "converged": aligned.converged,
            "largest_angle_degrees": float(np.abs(moved).max()),
        }  # fmt: skip
        assert isinstance(aligned.geometry, ParallelGeometry | FanGeometry)
        geometry = with_image(aligned.geometry, settings.size, settings.fov_mm)
        notes.append(
            f"aligned ({settings.align}): axis at column {axis_column(geometry):.2f}, angles moved by up to "
            f"{float(np.abs(moved).max()):.2g} degrees; residual {aligned.residual[0]:.3g} before, "
            f"{aligned.residual[-1]:.3g} after"
        )
    record["axis_column"] = axis_column(geometry)
    cut = truncation(sinogram, geometry)
    truncated = cut is not None and cut.views > TRUNCATED_VIEWS
    if truncated and settings.continue_truncated:
        handled = _how_truncated(settings.method)
        record["truncation"] = {"handled": handled}
        notes.append(f"the object is wider than the detector: {handled or 'nothing can be done with this method'}")
    missing = missing_fraction(geometry)
    record["missing_rays"] = missing
    if missing > _MISSING:
        findings.append(Finding(
            "missing rays",
            f"the views cover {math.degrees(angular_range(geometry)):.0f} degrees, {missing:.0%} of the rays are not "
            "measured: edges along them are lost and shapes are drawn out; values of FBP are too low",
        ))  # fmt: skip
    photons = settings.photons
    if photons is None:
        order = torch.as_tensor(geometry.angle_array.copy()).argsort()
        photons = float(f"{estimated_photons(sinogram[:, 0, order]):.2g}")
        notes.append(f"noise as of {photons:g} photons a ray, estimated from the data; --photons sets another number")
    record["photons"] = photons
    noise: NoiseModel = NoNoise() if photons == 0 else PoissonNoise(photons=photons)
    return PreparedScan(
        sinogram=sinogram, geometry=geometry, noise=noise, truncated=truncated and settings.continue_truncated,
        findings=tuple(findings), notes=tuple(notes), record=record,
    )  # fmt: skip


def _said_center(scan: ScanDescription | None) -> Centre | None:
    return None if scan is None else scan.center


def _off_center(scan: MeasuredScan) -> list[Finding]:
    """A finding where nobody said where the axis is, and the data speak against the middle."""
    middle = 0.5 * (scan.geometry.detectors - 1)
    try:
        column = with_center(scan, "auto")[1]
    except ValueError:
        return []
    if abs(column - middle) <= _OFF_CENTER:
        return []
    return [Finding(
        "rotation axis",
        f"nothing says where the axis is, and column {middle:g}, the middle of the detector, is taken; the data "
        f"suggest {column:.2f}: add --raw center=auto",
    )]  # fmt: skip


def _how_truncated(method: str) -> str:
    if method == "fbp":
        return "its rows are continued beyond the detector as those of an ellipse"
    if method in ON_A_WIDER_IMAGE:
        return f"the image is made {WIDER:g} times as wide and cut"
    return ""


@dataclass(frozen=True, eq=False)
class _Answer:
    mean: np.ndarray[Any, np.dtype[np.float32]]
    std: np.ndarray[Any, np.dtype[np.float32]] | None
    units: HounsfieldScale | None
    record: dict[str, Any]


def _reconstructed(
    reconstructor: Reconstructor, task: PreparedScan, settings: MeasuredSettings, progress: bool
) -> _Answer:
    """All slices, in parts."""
    pixel = task.geometry.pixel_rc[0]
    calibration, units, found = settings.calibration, None, dict[str, Any]()
    if settings.needs_scale:
        images = np.stack([fbp(one[None], task.geometry, "hann")[0, 0].numpy() for one in task.sinogram])
        units, found = calibration.scale(images if calibration.needs_image else images[:1], pixel)
        found["image"] = "filtered back-projection, before the reconstruction"
    y, geometry, cut = task.sinogram, task.geometry, slice(None)
    if task.truncated and reconstructor.name == "fbp":
        y, geometry = continue_rows(y, geometry)
    elif task.truncated and reconstructor.name in ON_A_WIDER_IMAGE:
        side = geometry.image_shape[0]
        more = math.ceil(0.5 * (WIDER - 1) * side)
        geometry = geometry.replace(image_shape=(side + 2 * more, side + 2 * more))
        cut = slice(more, more + side)
    measurement = Measurement(RayTransform(geometry), task.noise, units=units).to(settings.device)
    began, parts = time.perf_counter(), list[Reconstruction]()
    for start in range(0, len(y), _PART):
        part = y[start : start + _PART].to(settings.device)
        parts.append(reconstructor.reconstruct(
            part, measurement, num_samples=settings.samples, seed=settings.seed,
            image_ids=list(range(start, start + len(part))), progress=progress,
        ))  # fmt: skip
    mean = torch.cat([one.mean.cpu() for one in parts])[:, 0, cut, cut].float().numpy()
    stds = [one.std.cpu() for one in parts if one.std is not None]
    std = torch.cat(stds)[:, 0, cut, cut].float().numpy() if stds else None
    if calibration.wanted and units is None:
        units, found = calibration.scale(mean, pixel)
        found["image"] = "the reconstruction itself"
    record = dict(parts[0].provenance)
    weights = np.array([float(y[k : k + _PART].square().sum()) for k in range(0, len(y), _PART)])
    residuals = np.array([one.provenance["data_residual"] for one in parts])
    record["data_residual"] = float(np.sqrt((weights * residuals**2).sum() / max(weights.sum(), 1e-30)))
    record["images"], record["seconds_per_image"] = len(y), (time.perf_counter() - began) / len(y)
    return _Answer(mean, std, units, record | ({"calibration": found} if found else {}))
