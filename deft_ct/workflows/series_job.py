"""The work on a CT series: its scan is simulated, reconstructed and judged in batches of slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.square_grid import SquareGrid
from deft_ct.io import Series
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.problems.ct_metrics import evaluate
from deft_ct.problems.ct_null_space import unmeasured_map_hu
from deft_ct.reconstruction import Reconstruction
from deft_ct.reconstructor import USUAL_SAMPLES, Reconstructor
from deft_ct.report import Row
from deft_ct.runtime.content_key import ContentKey, result_versions
from deft_ct.runtime.parts import PartStore
from deft_ct.runtime.plain_values import plain
from deft_ct.runtime.progress import progress_bar
from deft_ct.runtime.side_by_side import side_by_side
from deft_ct.workflows.series_batches import (
    Division,
    SliceBatch,
    joined,
    joined_metrics,
    joined_provenance,
    ranges,
    volume_of,
    whole_volume,
)
from deft_ct.workflows.series_output import FinishedRun, MiddleSlice, Output, hu_of, method_label

if TYPE_CHECKING:
    from deft_ct.workflows.reconstruct_series import SparseView

GEOMETRIES: dict[str, type[ParallelGeometry | FanGeometry]] = {"parallel": ParallelGeometry, "fan": FanGeometry}
"""Geometry of the beam by name."""


@dataclass(frozen=True)
class SimulatedScan:
    """Slices and their simulated data.

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


def simulated_measurement(series: Series, settings: SparseView) -> Measurement:
    """The measurement that is simulated for a series; its image is a square of ``settings.side`` pixels."""
    square = _Square((settings.side, settings.side), series.pixel_mm)
    geometry = settings.scan.on_arc(GEOMETRIES[settings.geometry].for_volume(square, settings.views))
    return Measurement(RayTransform(geometry), settings.scan.noise, units=series.units).to(settings.device)


def simulate_scan(series: Series, settings: SparseView, measurement: Measurement | None = None) -> SimulatedScan:
    """Simulate the data of slices.

    Args:
        series: the slices, at most ``settings.side`` pixels wide.
        settings: the scan.
        measurement: of :func:`simulated_measurement`, if it is there already.
    """
    measurement = simulated_measurement(series, settings) if measurement is None else measurement
    grid = SquareGrid.around(series.image_shape, series.volume.spacing_mm, settings.side)
    square = torch.from_numpy(grid.padded(series.hu))[:, None]
    truth = series.units.to_attenuation(square).clamp_min(0.0).to(settings.device)
    y = measurement.simulate(truth, seed=settings.seed, image_ids=series.slice_uids, refine=settings.refine)
    return SimulatedScan(series, measurement, truth, y, grid)


@dataclass(frozen=True)
class _Square:
    """What a geometry needs to know of an image."""

    image_shape: tuple[int, int]
    pixel_mm: float


@dataclass(frozen=True)
class SeriesJob:
    """A series and what is done with it.

    Attributes:
        series: with the pixels of the reconstruction.
        settings: scan and methods; the size is set.
        reconstructors: the methods by name.
        unmeasured: whether to find what the scan did not measure, too.
        progress: show progress bars.
        keep_samples: whether the samples of the main method are kept, too.
    """

    series: Series
    settings: SparseView
    reconstructors: Mapping[str, Reconstructor]
    unmeasured: bool
    progress: bool
    keep_samples: bool = False

    @cached_property
    def measurement(self) -> Measurement:
        """The scan, made once for all batches."""
        return simulated_measurement(self.series, self.settings)

    def prepare(self) -> None:
        """Make what all batches share, the matrices of the scan: once, and so that it counts as memory in use."""
        scan = self.measurement
        image = torch.zeros(1, 1, *scan.operator.domain_shape, device=self.settings.device)
        y = scan.noise_free(image, refine=self.settings.refine)
        scan.operator.vjp(image, y)
        scan.operator.pseudo_inverse(y)

    @property
    def key(self) -> ContentKey:
        """Everything that the slices of the result depend on."""
        series, named = self.series, ("prior", "htransform", "models", "max_bytes")
        return ContentKey({
            "settings": {name: value for name, value in asdict(self.settings).items() if name not in named},
            "methods": {
                name: {"config": asdict(one.config), **one.describe()} for name, one in self.reconstructors.items()
            },
            "series": {"hu": series.hu, "affine": series.volume.affine, "uids": series.slice_uids},
            "unmeasured_map": self.unmeasured, "samples": self.keep_samples, "versions": result_versions(),
        })  # fmt: skip

    def finish(self, store: PartStore, division: Division) -> Callable[[], Iterator[SliceBatch]]:
        """Work on the batches that are not stored yet.

        Args:
            store: of the parts that are finished.
            division: how the work is divided.

        Returns:
            What reads all batches, in order, as often as it is called.
        """
        parts = ranges(len(self.series), division.slices)
        missing = [part for part in parts if store.read(_name(*part)) is None]
        whole = len(parts) == 1
        with progress_bar("slices", len(self.series), enabled=self.progress and not whole) as tick:
            tick(sum(stop - start for start, stop in parts if (start, stop) not in missing))
            for batch in self.batches(missing, division, progress=self.progress and whole):
                store.write(_name(batch.start, batch.stop), batch.to_part())
                tick(batch.stop - batch.start)

        def stored() -> Iterator[SliceBatch]:
            for start, stop in parts:
                part = store.read(_name(start, stop))
                if part is None:
                    raise OSError(f"slices {start + 1} to {stop} cannot be read from {store.folder}: run it again")
                yield SliceBatch.from_part(part)

        return stored

    def batches(
        self, parts: list[tuple[int, int]], division: Division, *, progress: bool = False
    ) -> Iterator[SliceBatch]:
        """The results of parts, as soon as each is there.

        Args:
            parts: first slice, and one more than the last, of every batch.
            division: how many at a time.
            progress: show the progress of a batch.
        """
        done = side_by_side(
            lambda part: self.batch(*part, progress=progress), parts,
            workers=division.workers, threads=division.threads,
        )  # fmt: skip
        at_a_time = min(division.workers, len(parts))
        return (batch.beside(at_a_time) for _, batch in done)

    def batch(self, start: int, stop: int, *, progress: bool) -> SliceBatch:
        """Work on the slices ``start`` <= z < ``stop``.

        Raises:
            ValueError: samples are to be kept, and the main method draws none.
        """
        settings = self.settings
        scan = simulate_scan(self.series.slices(start, stop), settings, self.measurement)
        whole = {name: self._reconstruct(one, scan, progress) for name, one in self.reconstructors.items()}
        results = {name: _cropped(result, scan.grid) for name, result in whole.items()}
        unmeasured = None
        if self.unmeasured:
            hu = unmeasured_map_hu(whole[settings.method].mean.to(scan.y), scan.y, scan.measurement)
            unmeasured = scan.grid.cropped(hu).cpu().numpy()[:, 0]
        samples = whole[settings.method].samples
        if self.keep_samples and samples is None:
            raise ValueError(
                f"{settings.method} draws no samples here: leave samples out of the output, or ask for two or more"
            )
        return SliceBatch(
            start=start, stop=stop, unmeasured_hu=unmeasured,
            samples=None if samples is None else scan.grid.cropped(samples).numpy()[:, :, 0],
            means={name: result.mean.numpy()[:, 0] for name, result in results.items()},
            stds={name: result.std.numpy()[:, 0] for name, result in results.items() if result.std is not None},
            metrics={
                name: evaluate(hu_of(result), scan.truth_hu, data_range_hu=settings.data_range_hu)
                for name, result in results.items()
            },
            records={name: plain(result.provenance) for name, result in results.items()},
        )  # fmt: skip

    def _reconstruct(self, reconstructor: Reconstructor, scan: SimulatedScan, progress: bool) -> Reconstruction:
        """The result on the CPU. Only the main method draws more than one sample; they are kept if it was asked for."""
        is_main = reconstructor.name == self.settings.method
        count = self.settings.samples if is_main else 1
        if is_main and count is None and self.keep_samples:
            count = USUAL_SAMPLES
        result = reconstructor.reconstruct(
            scan.y, scan.measurement, num_samples=count, seed=self.settings.seed, image_ids=scan.series.slice_uids,
            progress=progress,
        )  # fmt: skip
        std = None if result.std is None else result.std.cpu()
        kept = result.samples.cpu() if is_main and self.keep_samples and result.samples is not None else None
        return replace(result, mean=result.mean.cpu(), std=std, samples=kept)

    def finished(self, batches: Callable[[], Iterator[SliceBatch]], output: Output) -> FinishedRun:
        """What is written: the volumes of the main method, and the middle slice and the metrics of every method.

        Args:
            batches: gives all batches, in order.
            output: optional files.
        """
        light = [replace(batch, means={}, stds={}, unmeasured_hu=None, samples=None) for batch in batches()]
        records = {
            name: joined_provenance([(one.start, one.stop, one.records[name]) for one in light])
            for name in self.settings.methods
        }
        main = joined(batches, self.settings.method, self.measurement, records[self.settings.method])
        middle = len(self.series) // 2
        inside = next(batch for batch in batches() if batch.start <= middle < batch.stop)
        titles = {name: method_label(name, has_std=name in inside.stds) for name in records}
        units, grid = self.series.units, self.series.slices(middle, middle + 1)
        shown = {
            titles[name]: units.to_hu(torch.from_numpy(inside.means[name][middle - inside.start])).numpy()
            for name in records
        }
        rows = tuple(
            Row(
                method=titles[name], metrics=joined_metrics([one.metrics[name] for one in light]),
                seconds_per_slice=record["seconds_per_image"],
            )
            for name, record in records.items()
        )  # fmt: skip
        truth = units.to_hu(units.to_attenuation(torch.tensor(grid.hu[0])).clamp_min(0.0)).numpy()
        return FinishedRun(
            series=self.series, settings=self.settings, main=main, records=records, rows=rows, output=output,
            middle=MiddleSlice(index=middle, truth_hu=truth, columns=shown),
            mean_of=lambda name: whole_volume(batches, lambda batch: batch.means[name]),
            sample_of=lambda number: volume_of(
                batches, lambda batch: None if batch.samples is None else batch.samples[:, number]
            ),
            unmeasured_hu=volume_of(batches, lambda batch: batch.unmeasured_hu) if self.unmeasured else None,
        )  # fmt: skip


def _name(start: int, stop: int) -> str:
    return f"{start:05d}-{stop:05d}"


def _cropped(result: Reconstruction, grid: SquareGrid) -> Reconstruction:
    """The part of a result that shows the slices of the series."""
    std = None if result.std is None else grid.cropped(result.std)
    return replace(result, mean=grid.cropped(result.mean), std=std, samples=None)
