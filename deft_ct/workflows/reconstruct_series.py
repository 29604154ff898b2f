"""The main job from files to files: simulate a sparse-view scan of a CT series, reconstruct it, write everything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from deft_ct.ct.scan import FULL_DEGREES, Scan
from deft_ct.io import Chosen, Series, read_series
from deft_ct.io.dicom_findings import AIR_HU
from deft_ct.io.dicom_write import check_derivable
from deft_ct.io.errors import ReadError
from deft_ct.methods.registry import NetworkChoice, Networks, method_class
from deft_ct.operators.findings import Finding
from deft_ct.problems.ct import nearest_preset
from deft_ct.reconstructor import Reconstructor
from deft_ct.report import Row
from deft_ct.runtime.atomic import atomic_folder, reserve_folder
from deft_ct.runtime.device import check_device
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.parts import part_store
from deft_ct.workflows.series_batches import division_of
from deft_ct.workflows.series_job import GEOMETRIES, SeriesJob
from deft_ct.workflows.series_output import Output, is_own_file, write_run

MOST_NATIVE = 1024
"""Largest side that is taken as it is; networks, memory and time have limits. Larger slices are averaged down to it."""
LEAST_NATIVE = 256
"""Smaller slices are surrounded with air to this side, which the shipped networks were trained at."""


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
        samples: posterior samples of each slice; None for as many as the method needs for a spread.
        seed: of noise and sampling. The randomness of a slice depends on it and on the SOPInstanceUID of the slice.
        size: side of the reconstructed square in pixels. Larger slices are averaged down to it first, smaller and
            oblong ones are surrounded with air, see :class:`deft_ct.ct.square_grid.SquareGrid`. None: the pixels of the
            series, see :func:`native_size`.
        refine: the data are simulated on a grid this many times finer than the reconstruction.
        data_range_hu: data range of PSNR and SSIM in HU.
        max_bytes: most memory of the process, which bounds how many slices are worked on at once; results depend on it
            by rounding alone. None: most of what is free.

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
    samples: int | None = None
    seed: int = 0
    size: int | None = None
    refine: int = 2
    data_range_hu: float = 2000.0
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.methods:
            method_class(name)
        for name in ("views", "samples", "size", "refine", "max_bytes"):
            value, least = getattr(self, name), int(name != "samples")
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.geometry not in GEOMETRIES:
            raise ValueError(f"geometry must be one of {', '.join(GEOMETRIES)}, got {self.geometry!r}")
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

    @property
    def cores(self) -> int:
        """How many batches are worked on at a time: one for each thread of PyTorch, or a single one on a GPU."""
        return torch.get_num_threads() if torch.device(self.device).type == "cpu" else 1

    @property
    def side(self) -> int:
        """The size.

        Raises:
            ValueError: it is that of a series that is not known yet.
        """
        if self.size is None:
            raise ValueError("the size is that of the series: set it to native_size of the slices")
        return self.size

    def presets(self) -> dict[str, str]:
        """Method -> its shipped preset for the most similar scan; none unless ``size`` is 256, as in tuning."""
        found = {name: nearest_preset(name, self.scan) for name in self.methods} if self.size == LEAST_NATIVE else {}
        return {name: preset for name, preset in found.items() if preset is not None}

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


def native_size(image_shape: tuple[int, int], spacing_mm: tuple[float, float]) -> int:
    """Side of the square that holds slices with the pixels that they have.

    Args:
        image_shape: (rows, columns).
        spacing_mm: distance of rows and of columns; of pixels that are not square, the longer side counts.

    Returns:
        From :data:`LEAST_NATIVE` to :data:`MOST_NATIVE`.
    """
    sides = [count * step for count, step in zip(image_shape, spacing_mm, strict=True)]
    return min(max(math.ceil(max(sides) / max(spacing_mm) - 1e-6), LEAST_NATIVE), MOST_NATIVE)


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
    ``comparison.png``, ``report.html``, ``run.json``, and what ``output`` asks for. It appears when all of it is
    complete, or not at all. Slices are worked on in batches that fit into memory. Each finished batch is kept in
    ``OUT.unfinished`` until the folder is there. So the same call resumes a killed one, with the same results to the
    bit.

    Args:
        source: folder, zip archive, DICOMDIR or file of the series.
        out: folder for the results; new or empty, and apart from the source.
        settings: scan and methods; the defaults if None.
        output: optional files; the defaults if None.
        chosen: which series, phase and slices; the only one, and all, if None.
        progress: show progress bars.

    Returns:
        The folder and the metrics.

    Raises:
        ValueError: the input cannot be used (see :func:`deft_ct.io.read_series`), or holds nothing but air; or a slice
            does not fit into memory.
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
        networks = settings.networks()
        reconstructors = built_methods(settings, networks)
        series = read_series(source, chosen)
        if settings.size is None:
            settings = replace(settings, size=native_size(series.image_shape, series.volume.spacing_mm))
            reconstructors = built_methods(settings, networks)
        series = series.fitted(settings.side)
        check_not_air(series)
        check_derivable(series, output.dicom)
        job = SeriesJob(series, settings, reconstructors, output.unmeasured_map, progress, keep_samples=output.samples)
        job.prepare()
        division = division_of(settings.side, len(series), settings.max_bytes, cores=settings.cores)
        with part_store(target, job.key, division.plan) as store:
            # Of a run that was killed: the same batches, the same bits.
            division = division.resumed(store.plan, bounded=settings.max_bytes is not None)
            batches = job.finish(store, division)
            run = job.finished(batches, output)
            with atomic_folder(target, overwrite=output.overwrite, is_own=is_own_file) as work:
                write_run(work, replace(run, chosen=chosen))
    notes = (*series.notes, *series.changes, *(f"{name}: preset {p}" for name, p in settings.presets().items()))
    if store.discarded:
        notes += (f"an unfinished run with other settings was removed (different: {', '.join(store.discarded)})",)
    return Run(folder=target, rows=run.rows, notes=notes, findings=series.findings)


def built_methods(settings: SparseView, networks: Networks) -> dict[str, Reconstructor]:
    """The methods by name, with their presets."""
    presets = settings.presets()
    return {
        name: networks.build(name, settings.options.get(name, {}), preset=presets.get(name))
        for name in settings.methods
    }


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
