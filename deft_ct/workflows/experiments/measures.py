"""Image quality of DEFT on a set of slices, as plain values for each slice."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.evaluation.spread import Draws, spread_report
from deft_ct.evaluation.store import Record
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.problems.ct import CTProblem
from deft_ct.problems.ct_metrics import evaluate

RANGE_HU = 2000.0
"""Data range of PSNR and SSIM."""
SAMPLE_COUNTS = (1, 2, 4, 8, 16, 32)
"""Numbers of samples whose mean is measured."""


def slice_metrics(images: NDArray[np.float32], problem: CTProblem) -> Record:
    """PSNR and SSIM of whole slices, and RMSE inside the body.

    Args:
        images: ``(N, H, W)`` HU.
        problem: the true slices, in the same order.

    Returns:
        For ``"psnr_db"``, ``"ssim"`` and ``"rmse_body_hu"``: the ``"mean"`` and the values ``"per_slice"``.
    """
    found = evaluate(images, problem.truth, data_range_hu=RANGE_HU, body=problem.body)
    return {
        name: {"mean": float(values.mean()), "per_slice": values.tolist()}
        for name, values in (("psnr_db", found.psnr), ("ssim", found.ssim), ("rmse_body_hu", found.rmse_hu))
    }


def measure_deft(method: DEFT, problem: CTProblem, samples: int) -> Record:
    """Reconstruct every slice of a problem and measure the estimates.

    Args:
        method: with ``estimate="mean"``, only its direct mean is measured.
        problem: slices with their data.
        samples: posterior samples of each slice.

    Returns:
        Seconds and network evaluations per slice, and :func:`slice_metrics`. The metrics are of the ``"direct_mean"``,
        or of the first sample, ``"single"``, the mean of all samples, ``"mean"``, and the means of fewer samples,
        ``"means"``. For two samples or more, ``"spread"`` says how well the standard deviation of the samples covers
        the error.
    """
    began = time.perf_counter()
    results = [
        method.reconstruct(y, measurement, num_samples=samples, seed=problem.seed, image_ids=names)
        for y, measurement, names in problem.batches
    ]
    seconds = time.perf_counter() - began
    center = np.concatenate([r.in_units.mean[:, 0].cpu().numpy() for r in results])
    record: Record = {"seconds_per_slice": seconds / len(center)}
    record["evaluations_per_slice"] = results[0].provenance["network_evaluations_per_image"]
    if method.config.estimate == "mean":
        return record | {"direct_mean": slice_metrics(center, problem)}
    drawn = np.concatenate(
        [r.in_units.samples[:, :, 0].cpu().numpy() for r in results if r.in_units.samples is not None]
    )
    record |= {"single": slice_metrics(drawn[:, 0], problem), "mean": slice_metrics(center, problem)}
    record["means"] = {str(n): slice_metrics(drawn[:, :n].mean(1), problem) for n in SAMPLE_COUNTS if n <= samples}
    if samples > 1:
        draws = Draws(
            truth=problem.truth, centre=center, samples=drawn, mask=problem.mask, regions=problem.regions()
        )  # fmt: skip
        spread = spread_report(draws)
        record["spread"] = {key: spread[key] for key in ("rms_spread", "rmse", "coverage", "rank_histogram")}
    return record


def psnr_values(result: Record, estimate: str) -> list[float]:
    """PSNR (dB) of every slice in a result of :func:`measure_deft`.

    Args:
        result: what was measured.
        estimate: ``"single"``, ``"mean"`` or ``"direct_mean"``.
    """
    values: dict[str, Any] = result[estimate]["psnr_db"]
    return list(values["per_slice"])
