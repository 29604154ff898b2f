"""Measured quality of reconstruction methods on packs of CT slices: one protocol, one noise draw, equal metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.datasets.slices import CTSlice
from deft_ct.evaluation.metrics import Metrics, body_mask, evaluate
from deft_ct.measurement.measurement import Measurement
from deft_ct.reconstruction import Reconstruction
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.memory import peak_memory

__all__ = ["Problem", "Score", "prepare", "run_benchmark", "score", "score_json", "scores_json"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Slices with their simulated data: the same for every method.

    Attributes:
        scan: what was simulated.
        truth: ``(N, H, W)`` HU.
        body: ``(N, H, W)``, see :func:`~deft_ct.evaluation.metrics.body_mask`.
        batches: data ``(B, 1, *)``, measurement and names of the slices.
        seed: of the noise.
        refine: grid refinement of the simulation.
        device: where the data are.
    """

    scan: Scan
    truth: NDArray[np.float32]
    body: NDArray[np.bool_]
    batches: list[tuple[Tensor, Measurement, list[str]]]
    seed: int
    refine: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """A method on a set of slices.

    Attributes:
        label: name in the table.
        metrics: a value for every slice.
        seconds_per_slice: wall-clock time.
        evaluations_per_slice: network evaluations.
        data_residual: relative, mean over the batches.
        memory_mib: peak memory for one slice beyond what was in use before; None where it was not measured.
        estimate: ``(N, H, W)`` HU.
        spread: ``(N, H, W)`` HU, or None.
        provenance: of the first batch: configuration, hashes, versions.
    """

    label: str
    metrics: Metrics
    seconds_per_slice: float
    evaluations_per_slice: float
    data_residual: float
    memory_mib: float | None
    estimate: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    provenance: dict[str, Any]


def prepare(
    pack: CTPack, scan: Scan, *, seed: int = 0, refine: int = 2, batch_size: int = 8, device: str = "cpu"
) -> Problem:
    """Simulate a scan of every slice once.

    Args:
        pack: the slices.
        scan: what is simulated; the data of a slice depend on (seed, series, index) alone.
        seed: of the noise.
        refine: grid refinement of the simulation, see ``Measurement.simulate``.
        batch_size: slices at once.
        device: where the data go.
    """
    batches = _batches(pack, batch_size)
    truth = np.concatenate([np.stack([s.hu[0].numpy() for s in batch]) for batch in batches]).clip(min=-1000.0)
    measurements: dict[float, Measurement] = {}
    prepared: list[tuple[Tensor, Measurement, list[str]]] = []
    for width, run in groupby(batches, key=lambda batch: batch[0].pixel_mm):
        told = measurements.setdefault(width, scan.measurement(pack.image_shape, width).to(device))
        # One of its own, for the run alone: the finer grid that it holds takes as much memory as the other.
        simulator = scan.measurement(pack.image_shape, width).to(device)
        for batch in run:
            names = [f"{s.group}/{s.index}" for s in batch]
            x = HounsfieldScale().to_attenuation(torch.stack([s.hu for s in batch]).clamp_min(-1000.0)).to(device)
            prepared.append((simulator.simulate(x, seed=seed, image_ids=names, refine=refine), told, names))
    return Problem(
        scan=scan, truth=truth, body=body_mask(truth), batches=prepared, seed=seed, refine=refine, device=device
    )


def score(
    label: str,
    solver: Reconstructor,
    problem: Problem,
    *,
    samples: int = 4,
    seed: int | None = None,
    data_range_hu: float = 2000.0,
    measure_memory: bool = False,
    progress: bool = False,
) -> Score:
    """Reconstruct every slice of a problem and compare with the truth.

    Args:
        label: name in the table.
        solver: the method.
        problem: slices with their data.
        samples: posterior samples of each slice, for methods that draw them.
        seed: of the sampling; that of the noise when None.
        data_range_hu: data range of PSNR and SSIM.
        measure_memory: reconstruct the first slice once more, alone and before the others, and note the peak memory;
            what a method sets up once is then not part of the times.
        progress: show progress bars.
    """
    seed = problem.seed if seed is None else seed
    memory = None
    if measure_memory:
        y, measurement, names = problem.batches[0]
        with peak_memory(problem.device) as peak:
            solver.reconstruct(y[:1], measurement, num_samples=samples, seed=seed, image_ids=names[:1])
        memory = peak.mib
    results: list[Reconstruction] = [
        solver.reconstruct(y, measurement, num_samples=samples, seed=seed, image_ids=names, progress=progress)
        for y, measurement, names in problem.batches
    ]
    counts = np.array([len(names) for _, _, names in problem.batches], float)

    def average(field: str) -> float:
        return float(np.average([r.provenance[field] for r in results], weights=counts))

    estimate = np.concatenate([r.in_units.mean[:, 0].cpu().numpy() for r in results])
    spreads = [r.in_units.std for r in results]
    spread = None if spreads[0] is None else np.concatenate([s[:, 0].cpu().numpy() for s in spreads if s is not None])
    return Score(
        label=label,
        metrics=evaluate(estimate, problem.truth, data_range_hu=data_range_hu, body=problem.body),
        seconds_per_slice=average("seconds_per_image"),
        evaluations_per_slice=average("network_evaluations_per_image"),
        data_residual=average("data_residual"),
        memory_mib=memory,
        estimate=estimate,
        spread=spread,
        provenance=results[0].provenance,
    )


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
    measure_memory: bool = False,
    device: str = "cpu",
    progress: bool = False,
) -> tuple[list[Score], NDArray[np.float32]]:
    """Simulate a scan of every slice once and reconstruct it with every method; see :func:`prepare`, :func:`score`.

    Args:
        pack: the slices.
        scan: what is simulated.
        solvers: label -> method.
        samples: posterior samples of each slice, for methods that draw them.
        seed: of the noise and of the sampling.
        refine: grid refinement of the simulation.
        batch_size: slices at once.
        data_range_hu: data range of PSNR and SSIM.
        measure_memory: note the peak memory for one slice, too.
        device: where to compute.
        progress: show progress bars.

    Returns:
        A score for each method, and the true slices ``(N, H, W)`` in HU.
    """
    problem = prepare(pack, scan, seed=seed, refine=refine, batch_size=batch_size, device=device)
    scores = [
        score(
            label, solver, problem, samples=samples, data_range_hu=data_range_hu, measure_memory=measure_memory,
            progress=progress,
        )
        for label, solver in solvers.items()
    ]  # fmt: skip
    return scores, problem.truth


def score_json(result: Score) -> dict[str, Any]:
    """A score as plain values, per slice; values that JSON cannot hold become null."""
    metrics = result.metrics
    return {
        "psnr_db": _numbers(metrics.psnr), "psnr_body_db": _numbers(metrics.psnr_body), "ssim": _numbers(metrics.ssim),
        "rmse_body_hu": _numbers(metrics.rmse_hu), "bias_body_hu": _numbers(metrics.bias_hu),
        "seconds_per_slice": result.seconds_per_slice, "evaluations_per_slice": result.evaluations_per_slice,
        "peak_memory_one_slice_mib": result.memory_mib, "data_residual": result.data_residual,
    }  # fmt: skip


def scores_json(
    scores: Sequence[Score], *, pack: Path, every: int, scan: Scan, samples: int, seed: int, refine: int = 2
) -> dict[str, Any]:
    """A benchmark run as plain values, per slice."""
    return {
        "pack": pack.name, "every": every, "slices": len(scores[0].estimate), "scan": asdict(scan),
        "samples": samples, "seed": seed, "simulation_refinement": refine,
        "data_range_hu": scores[0].metrics.data_range_hu,
        "methods": {s.label: score_json(s) for s in scores},
    }  # fmt: skip


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _batches(pack: CTPack, size: int) -> list[list[CTSlice]]:
    """Runs of slices of one pixel size, at most ``size`` long."""
    out: list[list[CTSlice]] = []
    for item in pack:
        if out and len(out[-1]) < size and out[-1][0].pixel_mm == item.pixel_mm:
            out[-1].append(item)
        else:
            out.append([item])
    return out
