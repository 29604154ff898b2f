"""Best, median and worst slice of a method beside TV, and what of their errors the scan had not measured.

Every slice is reconstructed by FBP, TV and the method (for DEFT: the direct mean, and samples for the spread). Slices
are ranked by the RMSE of the method inside the body. Writes OUT/panel_best.png, panel_median.png and panel_worst.png,
and RESULTS/null_space.json and .md: means over the slices of the shares and the correlation of
``deft_ct.evaluation.null_space``.

    python benchmarks/experiments/panels.py --data test_volumes --every 5 --scan parallel60_1e5 --seed 0 \\
        --precision bfloat16 --batch-size 4 --out docs/images

The splits take most of the time: four of each slice, some hundreds of projections each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from deft_ct.cli import options as opt
from deft_ct.ct.scan import Scan
from deft_ct.evaluation.null_space import local_rms, null_space_report
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.problems.ct import CTProblem
from deft_ct.problems.ct_metrics import evaluate
from deft_ct.problems.ct_null_space import PRIOR_STD_HU, split_ct
from deft_ct.reconstructor import Reconstructor
from deft_ct.report import FOOTER, panel_figure, save_png

RANGE_HU = 2000.0
COLUMNS = (
    ("psnr_db", "PSNR (dB)", 2),
    ("rmse_body_hu", "RMSE in body (HU)", 1),
    ("error_unmeasured", "share of the error that was not measured", 3),
    ("correlation", "correlation of the unmeasured parts", 3),
    ("amount", "amount", 3),
)

Images = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All slices of a problem.

    Attributes:
        images: label -> ``(N, H, W)`` HU; ``"FBP"``, ``"TV"``, and one or two of the method, its estimate first.
        spread: ``(N, H, W)`` HU, or None for a method that draws no samples.
        spread_kind: above its picture: whether it is calibrated, and of how many samples.
        maps: ``"truth"`` and the estimate -> local RMS of the unmeasured part, ``(N, H, W)`` HU.
        values: label -> name of the column -> a value for every slice; without FBP.
        unmeasured_hu: RMS of the unmeasured part of the truth, whole slice.
    """

    images: dict[str, Images]
    spread: Images | None
    spread_kind: str
    maps: dict[str, Images]
    values: dict[str, dict[str, list[float]]]
    unmeasured_hu: list[float]


def measure(
    problem: CTProblem, fbp: Reconstructor, tv: Reconstructor, method: Reconstructor, *, samples: int
) -> Measured:
    """Reconstruct and split every slice.

    Args:
        problem: slices with their data.
        fbp: for the pictures only.
        tv: what the method is compared with.
        method: judged by its estimate, and by its first sample if it draws any.
        samples: of each slice, for the spread.
    """
    parts: dict[str, list[Images]] = {}
    found: dict[str, dict[str, list[float]]] = {}
    unmeasured: list[float] = []
    spread_kind = ""
    name = estimate = method.name.upper()

    def keep(name: str, values: torch.Tensor) -> None:
        parts.setdefault(name, []).append(values.detach()[:, 0].float().cpu().numpy())

    first = 0
    for y, measurement, names in problem.batches:
        assert measurement.units is not None
        affine = measurement.units.affine
        part = slice(first, first + len(names))
        first = part.stop
        truth = affine(torch.from_numpy(problem.truth[part]).to(y)[:, None])
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
            kind = "calibrated" if main.provenance["spread"]["calibrated"] else "uncalibrated"
            spread_kind = f"{kind} spread\nof {main.provenance['num_samples']} samples"
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
            into = found.setdefault(label, {})
            for column in ("error_measured", "error_unmeasured", "correlation", "amount"):
                into.setdefault(column, []).extend(getattr(report, column).tolist())
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    for label in found:
        quality = evaluate(joined[label], problem.truth, data_range_hu=RANGE_HU, body=problem.body)
        found[label] |= {"psnr_db": quality.psnr.tolist(), "rmse_body_hu": quality.rmse_hu.tolist()}
    return Measured(
        images={label: joined[label] for label in ("FBP", *found)},
        spread=joined.get("spread"),
        spread_kind=spread_kind,
        maps={label: joined["map " + label] for label in ("truth", estimate)},
        values=found,
        unmeasured_hu=unmeasured,
    )


def ranked(errors: Sequence[float]) -> dict[str, int]:
    """Indices of the best (least), median and worst (largest) error; NaN (slices without a body) are left out.

    Of an even number the better of the two in the middle is the median.

    Raises:
        ValueError: no error is a number.
    """
    order = [int(k) for k in np.argsort(errors, kind="stable") if not math.isnan(errors[int(k)])]
    if not order:
        raise ValueError("no slice has a body: there is nothing to rank")
    return {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and 95 % interval over slices, JSON-ready: a single slice has no interval."""
    return {key: value if math.isfinite(value) else None for key, value in asdict(mean_interval(values)).items()}


def summary(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """:func:`interval` of every column."""
    return {name: interval(values[name]) for name in (*(c for c, _, _ in COLUMNS), "error_measured")}


def markdown(record: Mapping[str, Any]) -> str:
    """The table of a record, and how to read it."""

    def cell(values: Mapping[str, Any], digits: int) -> str:
        ends = "" if values["low"] is None else f" [{values['low']:.{digits}f}, {values['high']:.{digits}f}]"
        return f"{values['mean']:.{digits}f}{ends}"

    lines = [["method", *(heading for _, heading, _ in COLUMNS)], ["---", *["---:"] * len(COLUMNS)]]
    for label, values in record["methods"].items():
        lines.append([label, *(cell(values["summary"][name], digits) for name, _, digits in COLUMNS)])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    amount = cell(record["unmeasured_of_truth_hu"]["summary"], 1)
    shown = ", ".join(f"{which}: {name}" for which, name in record["shown"].items())
    return (
        f"{table}\n\nPack {record['pack']}, every {record['every']}: n = {record['slices']} slices, "
        f"{Scan.from_name(record['scan'])}, seed {record['seed']}. Means over slices with 95 % bootstrap intervals "
        "(slices of a patient resemble each other, so they are too narrow for new patients). PSNR: whole slice, data "
        f"range {RANGE_HU:g} HU. The other columns follow 'What the scan did not measure' in docs/method.md, with a "
        f"prior standard deviation of {record['prior_spread_hu']:g} HU, on whole slices: the share of the squared "
        "error that was not measured above the noise; the correlation of the unmeasured part with that of the truth "
        "(1: the prior filled in what was there, 0: it invented); and the amount, the RMS of that part relative to the "
        f"one of the truth, which is {amount} HU. Strong edges carry most of this energy, so these numbers say little "
        f"of soft tissue.\n\nSlices of the figures, by RMSE in the body: {shown}.\n\n{FOOTER}.\n"
    )


def draw(problem: CTProblem, measured: Measured, names: Sequence[str], which: str, index: int, folder: Path) -> Path:
    """One figure."""
    greys = {label: images[index] for label, images in measured.images.items()}
    estimate = list(greys)[2]
    maps = {}
    if measured.spread is not None:
        maps[measured.spread_kind] = measured.spread[index]
    maps |= {f"not measured, {label}\nlocal RMS": images[index] for label, images in measured.maps.items()}
    rank = f"{which.capitalize()} of {len(names)} slices by RMSE of {estimate} in the body"
    title = f"{rank} ({names[index]}), {problem.scan}"
    figure = panel_figure(
        problem.truth[index], greys, maps, errors_of=("TV", estimate), data_range_hu=RANGE_HU, title=title
    )
    return save_png(figure, folder / f"panel_{which}.png")


def main(
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")],
    results: Annotated[Path, typer.Option(help="Folder of null_space.json and .md.")] = Path("benchmarks/results"),
    method: Annotated[str, typer.Option(help="Method with options, e.g. 'deft:draws=3'.")] = "deft",
    scan: Annotated[str, typer.Option(help="Name of the scan.")] = "parallel60_1e5",
    data: opt.Data = "test_volumes",
    every: opt.Every = 5,
    samples: opt.Samples = 4,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 4,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
) -> None:
    """Reconstruct, rank, draw the slices and write the table."""
    networks = opt.Networks(
        prior=prior, htransform=htransform, models={}, device=device, precision=opt.parse_precision(precision)
    )
    builder, protocol = opt.Builder(networks), Scan.from_name(scan)
    fbp, tv, solver = (builder.for_scan(text, protocol, presets=True)[0] for text in ("fbp", "tv", method))
    pack = opt.read_pack(data, every)
    problem = CTProblem(pack, protocol, seed=seed, batch_size=batch_size, device=device)
    measured = measure(problem, fbp, tv, solver, samples=samples)
    names = [name for _, _, group in problem.batches for name in group]
    estimate = list(measured.images)[2]
    chosen = ranked(measured.values[estimate]["rmse_body_hu"])
    for folder in (out, results):
        folder.mkdir(parents=True, exist_ok=True)
    for which, index in chosen.items():
        typer.echo(draw(problem, measured, names, which, index, out))
    record = {
        "pack": pack.path.name, "every": every, "slices": len(names), "scan": protocol.name, "seed": seed,
        "samples": samples, "method": method, "precision": precision, "simulation_refinement": problem.refine,
        "data_range_hu": RANGE_HU, "prior_spread_hu": PRIOR_STD_HU, "networks": solver.describe(),
        "names": names, "shown": {which: names[index] for which, index in chosen.items()},
        "unmeasured_of_truth_hu": {
            "summary": interval(measured.unmeasured_hu), "per_slice": measured.unmeasured_hu
        },
        "methods": {
            label: {"summary": summary(values), "per_slice": values} for label, values in measured.values.items()
        },
    }  # fmt: skip
    (results / "null_space.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (results / "null_space.md").write_text(markdown(record), encoding="utf-8")
    typer.echo(markdown(record))


if __name__ == "__main__":
    typer.run(main)
