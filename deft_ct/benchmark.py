"""Measured quality of reconstruction methods on packs of CT slices: one protocol, one noise draw, equal metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.datasets.packs import CTPack
from deft_ct.datasets.slices import CTSlice
from deft_ct.measurement import Measurement
from deft_ct.metrics import Metrics, evaluate
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.noise import NoiseModel, NoNoise, PoissonNoise
from deft_ct.reconstructor import Reconstructor
from deft_ct.units import HounsfieldScale


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A simulated scan, in units of the pixel so that it fits slices of every field of view.

    Args:
        views: number of views.
        photons: per detector element and view; None for noise-free data.
        geometry: ``"parallel"`` or ``"fan"`` (flat detector, distances of a clinical scanner).
        degrees: angular range of a parallel scan; 180 is a full one.
        detectors: detector elements of a parallel scan, one pixel wide each.

    Raises:
        ValueError: a value is out of range.
    """

    views: int = 60
    photons: float | None = 1e5
    geometry: str = "parallel"
    degrees: float = 180.0
    detectors: int = 364

    def __post_init__(self) -> None:
        if self.geometry not in ("parallel", "fan"):
            raise ValueError(f"geometry must be parallel or fan, got {self.geometry!r}")
        if self.views < 1 or self.detectors < 1 or not 0 < self.degrees <= 360:
            raise ValueError(f"views and detectors must be at least 1 and degrees lie in (0, 360], got {self}")

    @property
    def noise(self) -> NoiseModel:
        """The noise of the detector."""
        return NoNoise() if self.photons is None else PoissonNoise(photons=self.photons)

    def measurement(self, image_shape: tuple[int, int], pixel_mm: float) -> Measurement:
        """The scan of slices of one pixel size."""
        geometry: ParallelGeometry | FanGeometry
        if self.geometry == "fan":
            geometry = FanGeometry.for_image(image_shape, pixel_mm, self.views)
        else:
            geometry = ParallelGeometry(
                image_shape=image_shape,
                pixel_mm=pixel_mm,
                angles=np.arange(self.views) * (math.radians(self.degrees) / self.views),
                detectors=self.detectors,
                detector_mm=pixel_mm,
            )
        return Measurement(RayTransform(geometry), self.noise, units=HounsfieldScale())

    def __str__(self) -> str:
        photons = "noise-free" if self.photons is None else f"{self.photons:g} photons"
        arc = "" if self.geometry == "fan" or self.degrees == 180 else f" over {self.degrees:g} degrees"
        return f"{self.views} {self.geometry} views{arc}, {photons}"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A method on a set of slices.

    Attributes:
        label: name in the table.
        metrics: a value for every slice.
        seconds_per_slice: wall-clock time.
        evaluations_per_slice: network evaluations.
        data_residual: relative, mean over the batches.
        estimate: ``(N, H, W)`` HU.
        spread: ``(N, H, W)`` HU, or None.
    """

    label: str
    metrics: Metrics
    seconds_per_slice: float
    evaluations_per_slice: float
    data_residual: float
    estimate: NDArray[np.float32]
    spread: NDArray[np.float32] | None


def run_benchmark(
    pack: CTPack,
    scan: Scan,
    solvers: Mapping[str, Reconstructor],
    *,
    samples: int = 4,
    seed: int = 0,
    refine: int = 2,
    batch_size: int = 8,
    data_range_hu: float = 2000.0,
    progress: bool = False,
) -> tuple[list[Score], NDArray[np.float32]]:
    """Simulate a scan of every slice once and reconstruct it with every method.

    Args:
        pack: the slices.
        scan: what is simulated; the data of a slice depend on (seed, series, index) alone.
        solvers: label -> method.
        samples: posterior samples of each slice, for methods that draw them.
        seed: of the noise and of the sampling.
        refine: grid refinement of the simulation, see ``Measurement.simulate``.
        batch_size: slices at once.
        data_range_hu: data range of PSNR and SSIM.
        progress: show progress bars.

    Returns:
        A score for each method, and the true slices ``(N, H, W)`` in HU.
    """
    batches = list(_batches(pack, batch_size))
    truth = np.concatenate([np.stack([s.hu[0].numpy() for s in batch]) for batch in batches]).clip(min=-1000.0)
    measurements: dict[float, Measurement] = {}
    prepared: list[tuple[Tensor, Measurement, list[str]]] = []
    for batch in batches:
        width = batch[0].pixel_mm
        measurement = measurements.setdefault(width, scan.measurement(pack.image_shape, width))
        names = [f"{s.group}/{s.index}" for s in batch]
        x = HounsfieldScale().to_attenuation(torch.stack([s.hu for s in batch]).clamp_min(-1000.0))
        prepared.append((measurement.simulate(x, seed=seed, keys=names, refine=refine), measurement, names))
    scores = []
    for label, solver in solvers.items():
        results = [
            solver.reconstruct(y, measurement, num_samples=samples, seed=seed, keys=names, progress=progress)
            for y, measurement, names in prepared
        ]
        counts = np.array([len(names) for _, _, names in prepared], float)

        def average(field: str, records: Sequence[Any] = results, weights: NDArray[Any] = counts) -> float:
            return float(np.average([r.provenance[field] for r in records], weights=weights))

        estimate = np.concatenate([r.mean_hu[:, 0].numpy() for r in results])
        spreads = [r.std_hu for r in results]
        spread = None if spreads[0] is None else np.concatenate([s[:, 0].numpy() for s in spreads if s is not None])
        scores.append(
            Score(
                label=label,
                metrics=evaluate(estimate, truth, data_range_hu=data_range_hu),
                seconds_per_slice=average("seconds_per_image"),
                evaluations_per_slice=average("network_evaluations_per_image"),
                data_residual=average("data_residual"),
                estimate=estimate,
                spread=spread,
            )
        )
    return scores, truth


def scores_json(
    scores: Sequence[Score], *, pack: Path, every: int, scan: Scan, samples: int, seed: int, refine: int = 2
) -> dict[str, Any]:
    """A benchmark run as plain values, per slice and summarised."""
    return {
        "pack": pack.name, "every": every, "slices": len(scores[0].estimate), "scan": asdict(scan),
        "samples": samples, "seed": seed, "simulation_refinement": refine,
        "data_range_hu": scores[0].metrics.data_range_hu,
        "methods": {
            s.label: {
                "psnr_db": s.metrics.psnr.tolist(), "psnr_body_db": s.metrics.psnr_body.tolist(),
                "ssim": s.metrics.ssim.tolist(), "rmse_body_hu": s.metrics.rmse_hu.tolist(),
                "bias_body_hu": s.metrics.bias_hu.tolist(), "seconds_per_slice": s.seconds_per_slice,
                "evaluations_per_slice": s.evaluations_per_slice, "data_residual": s.data_residual,
            }
            for s in scores
        },
    }  # fmt: skip


def _batches(pack: CTPack, size: int) -> list[list[CTSlice]]:
    """Runs of slices of one pixel size, at most ``size`` long."""
    out: list[list[CTSlice]] = []
    for item in pack:
        if out and len(out[-1]) < size and out[-1][0].pixel_mm == item.pixel_mm:
            out[-1].append(item)
        else:
            out.append([item])
    return out
