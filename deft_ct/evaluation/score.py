"""A method on the images of a problem: estimates, metrics and cost, also of single batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.evaluation.problem import COVERAGE, Floats, Metric, Problem
from deft_ct.evaluation.spread import half_width, interval_coverage
from deft_ct.reconstruction import Reconstruction
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.plain_values import plain


@dataclass(frozen=True, kw_only=True)
class Score:
    """A method on the images of a problem.

    Attributes:
        label: name in the table.
        values: name of the metric -> a value for every image.
        metrics: of the problem, and :data:`COVERAGE`.
        seconds_per_image: wall-clock time.
        evaluations_per_image: network evaluations.
        data_residual: relative, mean over the batches.
        estimate: ``(N, *shape)`` in the unit of the problem.
        spread: ``(N, *shape)`` posterior standard deviation in the same unit, or None.
        provenance: of the first batch: configuration, hashes, versions.
    """

    label: str
    values: Mapping[str, NDArray[np.float64]]
    metrics: tuple[Metric, ...]
    seconds_per_image: float
    evaluations_per_image: float
    data_residual: float
    estimate: Floats
    spread: Floats | None
    provenance: dict[str, Any]


def values_in_unit(result: Reconstruction) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Mean, standard deviation and samples in the unit of the measurement's scale; as they are if it has none."""
    if result.measurement.units is None:
        return result.mean, result.std, result.samples
    found = result.in_units
    return found.mean, found.std, found.samples


class JudgedEstimate(NamedTuple):
    """What a method says of some images of a problem.

    Attributes:
        mean: ``(n, *shape)`` in the unit of the problem.
        spread: posterior standard deviation, or None.
        coverage: ``(n,)``, share of the mask that lies in the 90 % intervals; NaN without a standard deviation.
    """

    mean: Floats
    spread: Floats | None
    coverage: NDArray[np.float64]


def estimate_of(problem: Problem, where: slice, result: Reconstruction) -> JudgedEstimate:
    """A reconstruction in the layout of a problem, with the coverage of its intervals.

    Args:
        problem: with the truth.
        where: places of the reconstructed images among those of the problem.
        result: of these images.
    """
    mean, deviation, _ = values_in_unit(result)
    images = problem.to_numpy(mean)
    if deviation is None:
        return JudgedEstimate(images, None, np.full(len(images), np.nan))
    spread = problem.to_numpy(deviation)
    half = spread * half_width(result, 0.9)
    return JudgedEstimate(images, spread, interval_coverage(problem.truth[where], images, half, problem.mask[where]))


def score(
    label: str,
    reconstructor: Reconstructor,
    problem: Problem,
    *,
    samples: int = 4,
    seed: int | None = None,
    progress: bool = False,
) -> Score:
    """Reconstruct every image of a problem and compare with the truth.

    Args:
        label: name in the table.
        reconstructor: the method.
        problem: images with their data.
        samples: posterior samples of each image, for methods that draw them.
        seed: of the sampling; that of the problem when None.
        progress: show progress bars.
    """
    seed = problem.seed if seed is None else seed
    records, found, first = [], [], 0
    for y, measurement, image_ids in problem.batches:
        result = reconstructor.reconstruct(
            y, measurement, num_samples=samples, seed=seed, image_ids=image_ids, progress=progress
        )
        records.append(result.provenance)
        found.append(estimate_of(problem, slice(first, first + len(y)), result))
        first += len(y)
    counts = np.array([len(one.mean) for one in found], float)

    def average(field: str) -> float:
        return float(np.average([record[field] for record in records], weights=counts))

    mean = np.concatenate([one.mean for one in found])
    spreads = [one.spread for one in found if one.spread is not None]
    return Score(
        label=label,
        values={**problem.measure(mean), COVERAGE.name: np.concatenate([one.coverage for one in found])},
        metrics=(*problem.metrics, COVERAGE),
        seconds_per_image=average("seconds_per_image"),
        evaluations_per_image=average("network_evaluations_per_image"),
        data_residual=average("data_residual"),
        estimate=mean,
        spread=np.concatenate(spreads) if spreads else None,
        provenance=records[0],
    )


def score_json(result: Score) -> dict[str, Any]:
    """A score as plain values, per image; values that JSON cannot hold become null."""
    return {
        **{metric.key: plain(result.values[metric.name]) for metric in result.metrics},
        "seconds_per_slice": result.seconds_per_image, "evaluations_per_slice": result.evaluations_per_image,
        "data_residual": result.data_residual,
    }  # fmt: skip
