"""Which part of the errors of CT reconstructions lies in what the scan did not measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deft_ct.evaluation.null_space import local_rms, null_space_report
from deft_ct.problems.ct import CTProblem
from deft_ct.problems.ct_metrics import evaluate
from deft_ct.problems.ct_null_space import split_ct
from deft_ct.reconstructor import Reconstructor
from deft_ct.workflows.experiments.measures import RANGE_HU

Images = NDArray[np.float32]
_COLUMNS = ("error_measured", "error_unmeasured", "correlation", "amount")


@dataclass(frozen=True, kw_only=True)
class NullSpaceErrors:
    """All slices of a problem.

    Attributes:
        estimate: label of the method's estimate.
        images: label -> ``(N, H, W)`` HU; ``"FBP"``, ``"TV"``, the estimate, and one sample if the method draws any.
        spread: posterior standard deviation ``(N, H, W)`` HU, or None for a method that draws no samples.
        spread_title: whether it is calibrated, and of what.
        maps: ``"truth"`` and the estimate -> local RMS of the unmeasured part, ``(N, H, W)`` HU.
        values: label -> name of a column -> a value for every slice; without FBP.
        unmeasured_hu: RMS of the unmeasured part of each true slice.
    """

    estimate: str
    images: dict[str, Images]
    spread: Images | None
    spread_title: str
    maps: dict[str, Images]
    values: dict[str, dict[str, list[float]]]
    unmeasured_hu: list[float]


def measure_null_space(
    problem: CTProblem, fbp: Reconstructor, tv: Reconstructor, method: Reconstructor, *, samples: int
) -> NullSpaceErrors:
    """Reconstruct every slice, and split the truth and every error into a measured and an unmeasured part.

    Args:
        problem: slices with their data.
        fbp: for the pictures only.
        tv: what the method is compared with.
        method: judged by its estimate, and by its first sample if it draws any.
        samples: of each slice, for the posterior standard deviation.
    """
    parts: dict[str, list[Images]] = {}
    found: dict[str, dict[str, list[float]]] = {}
    unmeasured: list[float] = []
    spread_title = ""
    name = estimate = method.name.upper()

    def keep(key: str, values: torch.Tensor) -> None:
        parts.setdefault(key, []).append(values.detach()[:, 0].float().cpu().numpy())

    first = 0
    for y, measurement, names in problem.batches:
        assert measurement.units is not None
        affine = measurement.units.affine
        truth = affine(torch.from_numpy(problem.truth[first : first + len(names)]).to(y)[:, None])
        first += len(names)
        plain, variation, main = (
            solver.reconstruct(y, measurement, num_samples=count, seed=problem.seed, image_ids=names)
            for solver, count in ((fbp, 1), (tv, 1), (method, samples))
        )
        estimate = name if main.samples is None else f"{name} mean"
        images = {"FBP": plain.mean, "TV": variation.mean, estimate: main.mean}
        if main.samples is not None:
            images[f"{name} one sample"] = main.samples[:, 0]
        if main.std is not None:
            keep("spread", main.std / affine.scale)
            spread = main.provenance["spread"]
            kind = "calibrated" if spread["calibrated"] else "uncalibrated"
            source = "of the spread network" if spread.get("by") == "network" else f"of {samples} samples"
            spread_title = f"{kind} standard deviation\n{source}"
        own = split_ct(truth, y, measurement)
        unmeasured += (own.unmeasured.flatten(1).square().mean(1).sqrt() / affine.scale).tolist()
        keep("map truth", local_rms(own.unmeasured) / affine.scale)
        for label, image in images.items():
            keep(label, affine.inverse(image))
            if label == "FBP":
                continue
            error = split_ct(image - truth, y, measurement)
            if label == estimate:
                keep("map " + label, local_rms(own.unmeasured + error.unmeasured) / affine.scale)
            report = null_space_report(error, own)
            columns = found.setdefault(label, {})
            for column in _COLUMNS:
                columns.setdefault(column, []).extend(getattr(report, column).tolist())
    joined = {key: np.concatenate(arrays) for key, arrays in parts.items()}
    for label in found:
        quality = evaluate(joined[label], problem.truth, data_range_hu=RANGE_HU, body=problem.body)
        found[label] |= {"psnr_db": quality.psnr.tolist(), "rmse_body_hu": quality.rmse_hu.tolist()}
    return NullSpaceErrors(
        estimate=estimate,
        images={label: joined[label] for label in ("FBP", *found)},
        spread=joined.get("spread"),
        spread_title=spread_title,
        maps={label: joined["map " + label] for label in ("truth", estimate)},
        values=found,
        unmeasured_hu=unmeasured,
    )
