"""Quality of DEFT against the number of evaluations of the prior, for samplers and time grids, on validation slices.

Run: python benchmarks/experiments/few_steps.py --data val --every 10 --out benchmarks/results/few_steps
Every finished cell is kept in OUT/cells, and the same command goes on from there. Writes few_steps.json and .md.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from deft_ct.cli import options as opt
from deft_ct.ct.scan import Scan
from deft_ct.evaluation.metrics import evaluate
from deft_ct.evaluation.problem import Problem, prepare
from deft_ct.evaluation.spread import Draws, spread_report
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.registry import Networks
from deft_ct.networks.precision import check_precision
from deft_ct.report import FOOTER

COUNTS = (5, 10, 20, 50, 100)
KINDS = ("ddim:0", "ddim:1", "dpm-solver:0", "dpm-solver:1")
GRIDS = ("uniform", "quadratic", "log_snr", "karras")
DRAWS = (1, 2, 3)
COUNTED = (1, 2, 4, 8, 16, 32)
"""Numbers of samples that a mean is reported of."""
RANGE_HU = 2000.0


def metrics(images: Any, problem: Problem) -> dict[str, Any]:
    """PSNR and SSIM of whole slices, RMSE in the body: mean and values of every slice."""
    found = evaluate(images, problem.truth, data_range_hu=RANGE_HU, body=problem.body)
    return {
        name: {"mean": float(values.mean()), "per_slice": values.tolist()}
        for name, values in (("psnr_db", found.psnr), ("ssim", found.ssim), ("rmse_body_hu", found.rmse_hu))
    }


def measure(solver: DEFT, problem: Problem, samples: int) -> dict[str, Any]:
    """One cell: the first sample, the mean of the samples and their spread, or the direct mean."""
    began = time.perf_counter()
    results = [
        solver.reconstruct(y, measurement, num_samples=samples, seed=problem.seed, image_ids=names)
        for y, measurement, names in problem.batches
    ]
    seconds = time.perf_counter() - began
    centre = np.concatenate([r.in_units.mean[:, 0].cpu().numpy() for r in results])
    record: dict[str, Any] = {"seconds_per_slice": seconds / len(centre)}
    record["evaluations_per_slice"] = results[0].provenance["network_evaluations_per_image"]
    if solver.config.estimate == "mean":
        return record | {"direct_mean": metrics(centre, problem)}
    drawn = np.concatenate(
        [r.in_units.samples[:, :, 0].cpu().numpy() for r in results if r.in_units.samples is not None]
    )
    record |= {"single": metrics(drawn[:, 0], problem), "mean": metrics(centre, problem)}
    record["means"] = {str(n): metrics(drawn[:, :n].mean(1), problem) for n in COUNTED if n <= samples}
    if samples > 1:
        spread = spread_report(Draws(truth=problem.truth, centre=centre, samples=drawn, body=problem.body))
        record["spread"] = {key: spread[key] for key in ("rms_spread_hu", "rmse_hu", "coverage", "rank_histogram")}
    return record


def cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The settings of every cell."""
    more = opt.parse_options([item for item in arguments.options.split(",") if item], where="--options")
    out: list[dict[str, Any]] = []
    for kind, grid, steps in itertools.product(arguments.kinds, arguments.grids, arguments.steps):
        sampler, _, eta = kind.partition(":")
        settings = {"sampler": sampler, "eta": float(eta or 0), "grid": grid, "steps": steps, **more}
        out.append({"estimate": "samples", **settings})
    return out + [{"estimate": "mean", "draws": count} for count in arguments.draws]


def name_of(settings: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in settings.items())


def markdown(record: dict[str, Any]) -> str:
    """Tables of PSNR, and of spread, against the number of steps."""
    found = record["cells"]
    sampled = [cell for cell in found if "single" in cell["result"]]
    counts = sorted({cell["settings"]["steps"] for cell in sampled})
    rows: dict[str, dict[int, Any]] = {}
    for cell in sampled:
        settings = cell["settings"]
        key = f"{settings['sampler']}, eta {settings['eta']:g}, {settings['grid']}"
        rows.setdefault(key, {})[settings["steps"]] = cell["result"]

    def table(title: str, value: Any, form: str) -> str:
        head = [title, *(str(count) for count in counts)]
        lines = [head, ["---", *["---:"] * len(counts)]]
        for key, row in rows.items():
            lines.append([key, *(format(value(row[c]), form) if c in row else "-" for c in counts)])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    parts = []
    if sampled:
        parts.append(table("PSNR (dB) of one sample, by steps", lambda r: r["single"]["psnr_db"]["mean"], ".2f"))
        count = record["samples"]
        parts.append(table(f"PSNR (dB) of the mean of {count} samples", lambda r: r["mean"]["psnr_db"]["mean"], ".2f"))
    if sampled and record["samples"] > 1:
        parts.append(_means(rows))
        parts.append(table("RMS spread (HU) in the body", lambda r: r["spread"]["rms_spread_hu"], ".1f"))
        parts.append(table("RMSE (HU) of the mean in the body", lambda r: r["spread"]["rmse_hu"], ".1f"))
        parts.append(
            table("raw coverage (%) of 90 % intervals", lambda r: 100 * r["spread"]["coverage"]["body"]["0.9"], ".1f")
        )
    direct = [cell for cell in found if "direct_mean" in cell["result"]]
    if direct:
        lines = ["| direct mean | evaluations | PSNR (dB) | RMSE in body (HU) |", "| --- | ---: | ---: | ---: |"]
        for cell in direct:
            result = cell["result"]
            psnr, rmse = (result["direct_mean"][k]["mean"] for k in ("psnr_db", "rmse_body_hu"))
            evaluations = f"{result['evaluations_per_slice']:g}"
            lines.append(f"| {cell['settings']['draws']} draws | {evaluations} | {psnr:.2f} | {rmse:.1f} |")
        parts.append("\n".join(lines) + "\n")
    first = found[0]["result"]
    some = first["mean" if "mean" in first else "direct_mean"]["psnr_db"]["per_slice"]
    interval = mean_interval(some)
    parts.append(
        f"Pack {record['pack']}, every {record['every']}: n = {len(some)} slices, {Scan.from_name(record['scan'])}, "
        f"seed {record['seed']}; means over slices (95 % interval of the first cell: {interval.low:.2f} to "
        f"{interval.high:.2f} dB; the cells share slices and noise, so their differences are known better). PSNR: "
        f"whole slice, range {RANGE_HU:g} HU. A step is one evaluation of prior and head a sample.\n\n{FOOTER}.\n"
    )
    return "\n".join(parts)


def _means(rows: dict[str, dict[int, Any]]) -> str:
    """PSNR of the mean of N samples, and the gain on one sample, beside that of exact samples."""
    kept = {f"{key}, {steps} steps": r["means"] for key, row in rows.items() for steps, r in row.items()}
    numbers = [n for n in COUNTED if any(str(n) in means for means in kept.values())]
    lines = [["PSNR (dB) of the mean of N samples", *(str(n) for n in numbers)], ["---", *["---:"] * len(numbers)]]
    for key, means in kept.items():
        lines.append([key, *(f"{means[str(n)]['psnr_db']['mean']:.2f}" if str(n) in means else "-" for n in numbers)])
    exact = (10 * math.log10(2 / (1 + 1 / n)) for n in numbers)
    lines.append(["gain of exact samples on one", *(f"+{gain:.2f}" for gain in exact)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Parse, measure what is missing, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="val")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--scan", default="parallel60_1e5")
    parser.add_argument("--steps", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="SAMPLER:ETA")
    parser.add_argument("--grids", nargs="+", default=GRIDS)
    parser.add_argument("--draws", type=int, nargs="*", default=DRAWS, help="of the direct mean")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--options", default="", help="of every sampled cell, e.g. start=0.4,start_from=tv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--prior")
    parser.add_argument("--htransform")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", help="of the networks")
    arguments = parser.parse_args()
    builder = Networks(
        prior=arguments.prior, htransform=arguments.htransform, models={}, device=arguments.device,
        precision=check_precision(arguments.precision),
    )  # fmt: skip
    pack, scan = opt.read_pack(arguments.data, arguments.every), Scan.from_name(arguments.scan)
    first = builder.build("deft", {})
    protocol = {
        "pack": pack.path.name, "every": arguments.every, "scan": scan.name, "samples": arguments.samples,
        "seed": arguments.seed, "device": arguments.device, "networks": first.describe(),
        "versions": {"deft_ct": version("deft-ct"), "torch": version("torch"), "python": platform.python_version()},
    }  # fmt: skip
    problem: Problem | None = None
    done = []
    for settings in cells(arguments):
        identity = json.dumps([protocol, settings], sort_keys=True)
        path = arguments.out / "cells" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
        if path.is_file():
            cell = json.loads(path.read_text(encoding="utf-8"))
        else:
            problem = problem or prepare(
                pack, scan, seed=arguments.seed, batch_size=arguments.batch_size, device=arguments.device
            )
            direct = settings.get("estimate") == "mean"
            solver = builder.build("deft", {**settings, "batch_size": arguments.batch_size, "calibrated": False})
            assert isinstance(solver, DEFT)
            cell = {"settings": settings, "result": measure(solver, problem, 1 if direct else arguments.samples)}
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(cell) + "\n", encoding="utf-8")
            part.replace(path)
        done.append(cell)
        print(name_of(settings), f"{cell['result']['seconds_per_slice']:.2f} s / slice", flush=True)
    record = {**protocol, "cells": done}
    (arguments.out / "few_steps.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "few_steps.md").write_text(markdown(record), encoding="utf-8")
    print(markdown(record))


if __name__ == "__main__":
    main()
