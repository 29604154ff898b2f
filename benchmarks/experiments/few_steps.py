"""Quality of DEFT against the number of network evaluations, for samplers and time grids, on validation slices.

Run: python benchmarks/experiments/few_steps.py --data val --every 10 --out benchmarks/results/few_steps
(again to resume: every finished cell is kept in OUT/cells). Writes few_steps.json and few_steps.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.evaluation.store import Record, cached_json, content_name, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.method_text import parse_options
from deft_ct.problems.ct import CTProblem
from deft_ct.report import FOOTER
from deft_ct.runtime.machine import versions
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    build_method,
    experiment_parser,
    network_hashes,
    networks_from,
)
from deft_ct.workflows.experiments.measures import RANGE_HU, SAMPLE_COUNTS, measure_deft

STEPS = (5, 10, 20, 50, 100)
KINDS = ("ddim:0", "ddim:1", "dpm-solver:0", "dpm-solver:1")
GRIDS = ("uniform", "quadratic", "log_snr", "karras")
DRAWS = (1, 2, 3)
Rows = dict[str, dict[int, Record]]
"""Result by sampler and number of steps."""


def cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The configuration of DEFT in every cell."""
    more = parse_options([item for item in arguments.options.split(",") if item], where="--options")
    found: list[dict[str, Any]] = []
    for kind, grid, steps in itertools.product(arguments.kinds, arguments.grids, arguments.steps):
        sampler, _, eta = kind.partition(":")
        settings = {"sampler": sampler, "eta": float(eta or 0), "grid": grid, "steps": steps, **more}
        found.append({"estimate": "samples", **settings})
    return found + [{"estimate": "mean", "draws": count} for count in arguments.draws]


def run(arguments: argparse.Namespace) -> Record:
    """Measure the cells that are missing."""
    networks = networks_from(arguments, device=arguments.device)
    pack, scan = read_pack(arguments.data, arguments.every), Scan.from_name(arguments.scan)
    protocol = {
        "pack": pack.path.name, "data_sha256": pack.content_hash(), "every": arguments.every,
        "scan": scan.name, "samples": arguments.samples,
        "seed": arguments.seed, "device": arguments.device, "networks": network_hashes(networks),
        "versions": versions(),
    }  # fmt: skip

    @cache
    def problem() -> CTProblem:
        return CTProblem(pack, scan, seed=arguments.seed, batch_size=arguments.batch_size, device=arguments.device)

    done = []
    for settings in cells(arguments):
        samples = 1 if settings["estimate"] == "mean" else arguments.samples

        def compute(settings: dict[str, Any] = settings, samples: int = samples) -> Record:
            deft = build_method(networks, "deft", **settings, batch_size=arguments.batch_size, calibrated=False)
            assert isinstance(deft, DEFT)
            return {"settings": settings, "result": measure_deft(deft, problem(), samples)}

        cell = cached_json(arguments.out / "cells" / f"{content_name('cell', protocol, settings)}.json", compute)
        done.append(cell)
        print(settings, f"{cell['result']['seconds_per_slice']:.2f} s / slice", flush=True)
    return {**protocol, "cells": done}


def steps_table(title: str, rows: Rows, value: Callable[[Record], float], form: str) -> str:
    """One figure by sampler and number of steps."""
    counts = sorted({count for row in rows.values() for count in row})
    body = [[name, *(format(value(row[c]), form) if c in row else "-" for c in counts)] for name, row in rows.items()]
    return markdown_table([title, *map(str, counts)], body)


def sample_counts_table(rows: Rows) -> str:
    """PSNR of the mean of N samples. The last row is the gain that N exact posterior samples would have."""
    means = {f"{name}, {steps} steps": found["means"] for name, row in rows.items() for steps, found in row.items()}
    counts = [n for n in SAMPLE_COUNTS if any(str(n) in found for found in means.values())]
    body = [
        [name, *(f"{found[str(n)]['psnr_db']['mean']:.2f}" if str(n) in found else "-" for n in counts)]
        for name, found in means.items()
    ]
    exact = [f"+{10 * math.log10(2 / (1 + 1 / n)):.2f}" for n in counts]
    return markdown_table(
        ["PSNR (dB) of the mean of N samples", *map(str, counts)], [*body, ["gain of exact samples on one", *exact]]
    )


def direct_table(direct: Sequence[Record]) -> str:
    """The direct mean, by the number of its noise draws."""
    body = []
    for cell in direct:
        result = cell["result"]
        psnr, rmse = (result["direct_mean"][key]["mean"] for key in ("psnr_db", "rmse_body_hu"))
        draws, evaluations = cell["settings"]["draws"], result["evaluations_per_slice"]
        body.append([f"{draws} draws", f"{evaluations:g}", f"{psnr:.2f}", f"{rmse:.1f}"])
    return markdown_table(["direct mean", "evaluations", "PSNR (dB)", "RMSE in body (HU)"], body)


def markdown(record: Record) -> str:
    """Tables of quality and posterior standard deviation against the number of steps."""
    rows: Rows = {}
    for cell in record["cells"]:
        if "single" in cell["result"]:
            settings = cell["settings"]
            name = f"{settings['sampler']}, eta {settings['eta']:g}, {settings['grid']}"
            rows.setdefault(name, {})[settings["steps"]] = cell["result"]
    parts, samples = [], record["samples"]
    if rows:
        single, mean = "PSNR (dB) of one sample, by steps", f"PSNR (dB) of the mean of {samples} samples"
        parts.append(steps_table(single, rows, lambda r: r["single"]["psnr_db"]["mean"], ".2f"))
        parts.append(steps_table(mean, rows, lambda r: r["mean"]["psnr_db"]["mean"], ".2f"))
    if rows and samples > 1:
        deviation, coverage = "RMS standard deviation (HU) in the body", "uncalibrated coverage (%) of 90 % intervals"
        parts.append(sample_counts_table(rows))
        parts.append(steps_table(deviation, rows, lambda r: r["spread"]["rms_spread"], ".1f"))
        parts.append(steps_table("RMSE (HU) of the mean in the body", rows, lambda r: r["spread"]["rmse"], ".1f"))
        parts.append(steps_table(coverage, rows, lambda r: 100 * r["spread"]["coverage"]["body"]["0.9"], ".1f"))
    if direct := [cell for cell in record["cells"] if "direct_mean" in cell["result"]]:
        parts.append(direct_table(direct))
    first = record["cells"][0]["result"]
    values = first["mean" if "mean" in first else "direct_mean"]["psnr_db"]["per_slice"]
    interval = mean_interval(values)
    parts.append(
        f"Dataset {record['pack']}, every {record['every']}: n = {len(values)} slices, "
        f"{Scan.from_name(record['scan'])}, seed {record['seed']}. Means over slices; the 95 % interval of the first "
        f"cell is {interval.low:.2f} to {interval.high:.2f} dB. All cells share slices and noise, so differences "
        f"between them are known more precisely. PSNR: whole slice, range {RANGE_HU:g} HU. A step is one evaluation of "
        "the prior and of the h-transform for each sample."
    )
    return "\n\n".join([*parts, f"{FOOTER}."]) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables and of the finished cells")
    add_data_arguments(parser)
    parser.add_argument("--scan", default="parallel60_1e5")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="SAMPLER:ETA")
    parser.add_argument("--grids", nargs="+", default=GRIDS)
    parser.add_argument("--draws", type=int, nargs="*", default=DRAWS, help="noise draws of the direct mean")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--options", default="", help="options of every sampled cell, e.g. start=0.4,start_from=tv")
    add_network_arguments(parser)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--batch-size", type=int, default=8, help="slices in a batch")
    arguments = parser.parse_args(argv)
    record = run(arguments)
    write_result(arguments.out, "few_steps", record, markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
