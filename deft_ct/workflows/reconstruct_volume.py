"""From a CT volume in memory to its sparse-view reconstruction in memory, for pipelines with files of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deft_ct.ct.square_grid import SquareGrid
from deft_ct.ct.volume import LPS_TO_RAS, Volume
from deft_ct.io.volume_series import series_of_volume
from deft_ct.problems.ct_metrics import CTMetrics
from deft_ct.workflows.reconstruct_series import SparseView, built_methods, check_not_air, native_size
from deft_ct.workflows.series_batches import division_of, joined, joined_metrics, joined_provenance, ranges
from deft_ct.workflows.series_job import SeriesJob


@dataclass(frozen=True)
class ReconstructedVolume:
    """The result on the grid of the volume that went in.

    Attributes:
        mean: reconstruction in HU.
        std_hu: ``(Z, H, W)`` posterior standard deviation in HU; None for methods and settings without one.
        metrics: of every slice, against the volume that went in.
        provenance: method, networks, scan and warnings, JSON-ready.
    """

    mean: Volume
    std_hu: NDArray[np.float32] | None
    metrics: CTMetrics
    provenance: dict[str, Any]


def reconstruct_volume(volume: Volume, settings: SparseView | None = None) -> ReconstructedVolume:
    """Simulate a sparse-view scan of every slice and reconstruct it with the main method of the settings.

    The result of a slice depends on the values and the place of the volume, the settings and the number of the slice.

    Args:
        volume: axial slices; values below -1024 HU become -1024.
        settings: scan and method; the defaults if None. ``compare`` is ignored, and ``size`` may only be left out or be
            large enough for the slices as they are.

    Raises:
        ValueError: the slices are not axial, are nothing but air, do not fit into memory, or have pixels that the
            reconstruction would have to change: not square, or more than 1024 of them along a side.
    """
    settings = replace(settings or SparseView(), compare=())
    series = series_of_volume(volume, Path("volume"))
    size = settings.size or native_size(series.image_shape, series.volume.spacing_mm)
    settings = replace(settings, size=size)
    grid = SquareGrid.around(series.image_shape, series.volume.spacing_mm, size)
    if not grid.is_identity:
        raise ValueError(
            f"expected slices of square pixels, at most {size} along a side, got {series.image_shape} pixels of "
            f"{series.volume.spacing_mm} mm: resample the volume first"
        )
    check_not_air(series)
    methods = built_methods(settings, settings.networks())
    job = SeriesJob(series.fitted(size), settings, methods, unmeasured=False, progress=False)
    job.prepare()
    division = division_of(size, len(series), settings.max_bytes, cores=settings.cores)
    batches = sorted(job.batches(ranges(len(series), division.slices), division), key=lambda batch: batch.start)
    name = settings.method
    record = joined_provenance([(one.start, one.stop, one.records[name]) for one in batches])
    result = joined(lambda: iter(batches), name, job.measurement, record).in_units
    return ReconstructedVolume(
        mean=volume.with_hu(result.mean.numpy()[:, 0]), std_hu=None if result.std is None else result.std.numpy()[:, 0],
        metrics=joined_metrics([one.metrics[name] for one in batches]), provenance=record,
    )  # fmt: skip


def volume_of_array(hu: torch.Tensor, ras_affine: NDArray[np.float64]) -> Volume:
    """A volume from the layout of NIfTI tools, MONAI and TorchIO.

    Args:
        hu: ``(1, I, J, K)`` CT numbers; the last axis runs along the slices.
        ras_affine: ``(4, 4)``, voxel indices ``(i, j, k)`` to millimetres to the right, front and head.

    Raises:
        ValueError: another number of axes or channels.
    """
    if hu.ndim != 4 or len(hu) != 1:
        raise ValueError(f"expected a CT volume (1, I, J, K), got {tuple(hu.shape)}")
    values = hu[0].detach().cpu().to(torch.float32).permute(2, 1, 0).numpy()
    return Volume(values, LPS_TO_RAS @ np.asarray(ras_affine, dtype=np.float64))


def array_of_volume(values: NDArray[np.float32]) -> torch.Tensor:
    """``(Z, H, W)`` values in the layout of :func:`volume_of_array`, ``(1, I, J, K)``."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 1, 0)))[None]
