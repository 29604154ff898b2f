"""Pictures of the best, median and worst slice of a method and of TV, and the part of their errors in the null space.

Every slice is reconstructed by FBP, TV and the method; for DEFT, by its mean and by samples for the posterior standard
deviation. Slices are ranked by the RMSE of the method inside the body. Writes OUT/panel_best.png, panel_median.png and
panel_worst.png. RESULTS/null_space.json and .md hold means over slices of the shares and the correlation of
``deft_ct.evaluation.null_space``, whose projections take most of the time.

Run: python benchmarks/experiments/panels.py --data test_volumes --every 5 --scan parallel60_1e5 --seed 0 \\
         --precision bfloat16 --batch-size 4 --out docs/images
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.method_text import parse_method
from deft_ct.problems.ct import CTProblem, nearest_preset
from deft_ct.problems.ct_null_space import PRIOR_STD_HU
from deft_ct.report import FOOTER, panel_figure, save_png
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    build_method,
    experiment_parser,
    hashes_of,
    networks_from,
)
from deft_ct.workflows.experiments.measures import RANGE_HU
from deft_ct.workflows.experiments.null_space_errors import NullSpaceErrors, measure_null_space

COLUMNS = (
    ("psnr_db", "PSNR (dB)", 2),
    ("rmse_body_hu", "RMSE in body (HU)", 1),
    ("error_unmeasured", "share of the error that was not measured", 3),
    ("correlation", "correlation of the unmeasured parts", 3),
    ("amount", "amount", 3),
)


def ranked(errors: Sequence[float]) -> dict[str, int]:
    """Indices of the best (smallest), median and worst (largest) error.

    NaN (slices without a body) is left out. Of an even number, the better of the two in the middle is the median.

    Raises:
        ValueError: no error is a number.
    """
    order = [int(k) for k in np.argsort(errors, kind="stable") if not math.isnan(errors[int(k)])]
    if not order:
        raise ValueError("no slice has a body: there is nothing to rank")
    return {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and 95 % interval over slices; None for the ends that a single slice does not have."""
    return {key: value if math.isfinite(value) else None for key, value in asdict(mean_interval(values)).items()}


def summary(values: Mapping[str, Sequence[float]]) -> Record:
    """:func:`interval` of every column."""
    return {name: interval(values[name]) for name in (*(c for c, _, _ in COLUMNS), "error_measured")}


def interval_text(values: Mapping[str, Any], digits: int) -> str:
    """A mean with its interval in brackets, if it has one."""
    ends = "" if values["low"] is None else f" [{values['low']:.{digits}f}, {values['high']:.{digits}f}]"
    return f"{values['mean']:.{digits}f}{ends}"


def markdown(record: Mapping[str, Any]) -> str:
    """The table of a record, and how to read it."""
    rows = [
        [label, *(interval_text(values["summary"][name], digits) for name, _, digits in COLUMNS)]
        for label, values in record["methods"].items()
    ]
    amount = interval_text(record["unmeasured_of_truth_hu"]["summary"], 1)
    shown = ", ".join(f"{which}: {name}" for which, name in record["shown"].items())
    return (
        f"{markdown_table(['method', *(heading for _, heading, _ in COLUMNS)], rows)}\n\n"
        f"Dataset {record['pack']}, every {record['every']}: n = {record['slices']} slices, "
        f"{Scan.from_name(record['scan'])}, seed {record['seed']}. Means over slices with 95 % bootstrap intervals; "
        "slices of a patient resemble each other, so the intervals are too narrow for new patients. PSNR: whole slice, "
        f"data range {RANGE_HU:g} HU. The other columns follow 'What the scan did not measure' in docs/method.md, with "
        f"a prior standard deviation of {record['prior_spread_hu']:g} HU, on whole slices. Share: the part of the "
        "squared error that was not measured above the noise. Correlation: of the unmeasured part with that of the "
        "truth (1: the prior filled in what was there, 0: it invented). Amount: the RMS of the unmeasured part "
        f"relative to that of the truth, which is {amount} HU. Strong edges carry most of this energy, so these "
        f"numbers say little of soft tissue.\n\nSlices of the figures, by RMSE in the body: {shown}.\n\n{FOOTER}.\n"
    )


def draw(problem: CTProblem, measured: NullSpaceErrors, chosen: Mapping[str, int], folder: Path) -> None:
    """A picture of each chosen slice."""
    names = [name for _, _, group in problem.batches for name in group]
    for which, index in chosen.items():
        maps = {}
        if measured.spread is not None:
            maps[measured.spread_title] = measured.spread[index]
        maps |= {f"not measured, {label}\nlocal RMS": images[index] for label, images in measured.maps.items()}
        rank = f"{which.capitalize()} of {len(names)} slices by RMSE of {measured.estimate} in the body"
        figure = panel_figure(
            problem.truth[index], {label: images[index] for label, images in measured.images.items()}, maps,
            errors_of=("TV", measured.estimate), data_range_hu=RANGE_HU,
            title=f"{rank} ({names[index]}), {problem.scan}",
        )  # fmt: skip
        print(save_png(figure, folder / f"panel_{which}.png"))


def run(arguments: argparse.Namespace) -> Record:
    """Reconstruct and rank every slice, and draw three of them."""
    networks, scan = networks_from(arguments, device=arguments.device), Scan.from_name(arguments.scan)
    fbp, tv, method = (
        build_method(networks, text, preset=nearest_preset(parse_method(text)[0], scan))
        for text in ("fbp", "tv", arguments.method)
    )
    pack = read_pack(arguments.data, arguments.every)
    problem = CTProblem(pack, scan, seed=arguments.seed, batch_size=arguments.batch_size, device=arguments.device)
    measured = measure_null_space(problem, fbp, tv, method, samples=arguments.samples)
    chosen = ranked(measured.values[measured.estimate]["rmse_body_hu"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(problem, measured, chosen, arguments.out)
    names = [name for _, _, group in problem.batches for name in group]
    return {
        "pack": pack.path.name, "every": arguments.every, "slices": len(names), "scan": scan.name,
        "seed": arguments.seed, "samples": arguments.samples, "method": arguments.method,
        "precision": arguments.precision, "simulation_refinement": problem.refine, "data_range_hu": RANGE_HU,
        "prior_spread_hu": PRIOR_STD_HU, "networks": hashes_of(method, networks), "names": names,
        "shown": {which: names[index] for which, index in chosen.items()},
        "unmeasured_of_truth_hu": {
            "summary": interval(measured.unmeasured_hu), "per_slice": measured.unmeasured_hu
        },
        "methods": {
            label: {"summary": summary(values), "per_slice": values} for label, values in measured.values.items()
        },
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="folder of the table")
    parser.add_argument("--method", default="deft", help="method with options, e.g. 'deft:draws=3'")
    parser.add_argument("--scan", default="parallel60_1e5")
    add_data_arguments(parser, data="test_volumes", every=5)
    parser.add_argument("--samples", type=int, default=4, help="posterior samples of each slice")
    parser.add_argument("--batch-size", type=int, default=4, help="slices in a batch")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add_network_arguments(parser)
    arguments = parser.parse_args(argv)
    record = run(arguments)
    write_result(arguments.results, "null_space", record, markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
