"""How much DEFT, TV and FBP lose when the scan differs from what they assume.

Data of validation slices are simulated with the true scan and reconstructed with the nominal one. Photons, angles,
detector position, detector gain and first angle are changed one at a time. Changes of quality are paired, slice by
slice, with the case in which everything is as assumed.

Run: python benchmarks/experiments/robustness.py --every 16
(again to resume: every finished pair of case and method is kept in WORK)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.paired import differences, paired_difference, signed_interval
from deft_ct.evaluation.score import score, score_json
from deft_ct.evaluation.statistics import Interval, mean_interval
from deft_ct.evaluation.store import Record, cached_json, content_name, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.problems.ct import CTProblem
from deft_ct.reconstructor import Reconstructor
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    build_method,
    experiment_parser,
    hashes_of,
    networks_from,
)
from deft_ct.workflows.experiments.measures import RANGE_HU
from deft_ct.workflows.experiments.scan_errors import FAULTY, Case, perturbed

TV = "TV"
METHODS = {"DEFT, direct mean": "deft", "DEFT, one sample": "deft:estimate=samples", TV: "tv", "FBP": "fbp"}
EXACT = "as assumed"
# A constant error of the angles is left out: it turns the image and changes nothing else.
CASES = (
    Case(name=EXACT),
    Case(name="1/3 of the photons", photons=1 / 3),
    Case(name="1/3 of the photons, told", photons=1 / 3, told=True),
    Case(name="1/10 of the photons", photons=0.1),
    Case(name="1/10 of the photons, told", photons=0.1, told=True),
    Case(name="10 times the photons", photons=10.0),
    Case(name="10 times the photons, told", photons=10.0, told=True),
    Case(name="angles off by 0.25 degrees", angle_degrees=0.25),
    Case(name="angles off by 0.5 degrees", angle_degrees=0.5),
    Case(name="detector off by 0.5 elements", offset_elements=0.5),
    Case(name="detector off by 1 element", offset_elements=1.0),
    Case(name=f"gain of {FAULTY} elements off by 5 %", gain=0.05),
    # The networks were trained with arcs from angle 0. The methods know the angles; the scan descriptor does not.
    Case(name="first view after half a step, told", start_steps=0.5, told=True),
    Case(name="first view after 15 steps, told", start_steps=15.0, told=True),
)
Cells = Mapping[tuple[str, str], Record]
"""Values of every slice, by case and method."""


def verdict(beyond: Interval) -> str:
    """Whether a method loses more than TV, from its change of PSNR minus that of TV."""
    if beyond.high < 0:
        return "more"
    return "less" if beyond.low > 0 else "no clear difference"


def row_against(cells: Cells, case: str, against: str, method: str) -> Record:
    """Means of a method in a case, and their paired changes from another case."""

    def change(key: str, name: str) -> list[float]:
        return differences(cells[case, name][key], cells[against, name][key])

    cell = cells[case, method]
    row: Record = {"case": case, "against": against, "method": method}
    row["psnr_db"] = float(np.mean(cell["psnr_db"]))
    row["rmse_body_hu"] = float(np.nanmean(np.array(cell["rmse_body_hu"], float)))
    if case != against:
        row["psnr_change_db"] = asdict(mean_interval(change("psnr_db", method), method="t"))
        row["rmse_change_hu"] = asdict(mean_interval(change("rmse_body_hu", method), method="t"))
        if method != TV and (case, TV) in cells:
            beyond = paired_difference(change("psnr_db", method), change("psnr_db", TV))
            row |= {"psnr_change_beyond_tv_db": asdict(beyond), "loses": verdict(beyond)}
    return row


def changes_table(rows: Sequence[Record]) -> str:
    """Means and changes of every case and method."""

    def text(row: Record, key: str) -> str:
        return signed_interval(Interval(**row[key])) if key in row else "-"

    headings = [
        "case", "method", "PSNR (dB)", "RMSE in body (HU)", "change of PSNR (dB)", "change of RMSE (HU)",
        "change of PSNR beyond TV's (dB)", "loses, compared with TV",
    ]  # fmt: skip
    body = [
        [
            row["case"], row["method"], f"{row['psnr_db']:.2f}", f"{row['rmse_body_hu']:.1f}",
            text(row, "psnr_change_db"), text(row, "rmse_change_hu"), text(row, "psnr_change_beyond_tv_db"),
            row.get("loses", "-"),
        ]
        for row in rows
    ]  # fmt: skip
    return markdown_table(headings, body)


def shifts_table(shifts: Mapping[str, Sequence[float | None]]) -> str:
    """Range of the detector shifts that were found, and in how many slices."""
    body = []
    for case, values in shifts.items():
        found = [value for value in values if value is not None]
        span = f"{min(found):+.2f} to {max(found):+.2f}" if found else "-"
        body.append([case, span, f"{len(found)} of {len(values)}"])
    return markdown_table(["case", "elements, smallest to largest", "slices with a result"], body)


def markdown(record: Record) -> str:
    """All tables and what they are about."""
    settings = record["settings"]
    return "\n\n".join([
        "# The scan differs from what the methods assume",
        f"Changes from the case {EXACT!r}: mean (95 % interval of the paired differences).",
        changes_table(record["against_exact"]),
        "## A wrong noise level for the same data",
        "Changes from the case in which the methods know the photons of the data.",
        changes_table(record["against_told"]),
        "## What `operators.ct.detector_shift` finds in the data of single slices",
        shifts_table(record["detector_shift_elements"]),
        f"Dataset {settings['pack']}, every {settings['every']}: n = {settings['slices']} slices, {settings['scan']}, "
        f"seed {settings['seed']}, networks in {settings['precision']}; whole slices, range {RANGE_HU:g} HU. Angles: "
        "an independent Gaussian error of every view, the same for all slices. Detector and gain: one shift and one "
        "set of elements. Intervals are over slices. Slices of a patient resemble each other, and one draw of errors "
        "was tried. \"Loses\" follows from the interval beside it. Not for clinical use.",
    ]) + "\n"  # fmt: skip


def detector_shifts(problem: CTProblem) -> Record:
    """The detector shift that is found in the data of each slice, or None."""
    found = [measurement.diagnose(y).record for data, measurement, _ in problem.batches for y in data]
    return {"elements": [record.get("detector_shift_elements") for record in found]}


def run(arguments: argparse.Namespace) -> Record:
    """Measure the cells that are missing."""
    pack, nominal = read_pack(arguments.data, arguments.every), Scan.from_name(arguments.scan)
    if len(pack) < 2:
        raise ValueError(f"an interval needs at least two slices; --every {arguments.every} leaves {len(pack)}")
    networks = networks_from(arguments)
    names = arguments.method or list(METHODS)
    methods = {name: build_method(networks, METHODS[name]) for name in names}
    described = {
        name: hashes_of(method, networks) | {"config": asdict(method.config)} for name, method in methods.items()
    }

    @cache
    def exact() -> CTProblem:
        return CTProblem(pack, nominal, seed=arguments.seed, batch_size=arguments.batch_size)

    cells: dict[tuple[str, str], Record] = {}
    shifts: dict[str, list[float | None]] = {}
    for case in CASES:

        @cache
        def problem(case: Case = case) -> CTProblem:
            return perturbed(exact(), case)

        identity: list[Any] = [pack.content_hash(), arguments.every, nominal.name, arguments.seed, asdict(case)]
        path = arguments.work / f"{content_name(f'{case.name} shift', *identity)}.json"
        shifts[case.name] = cached_json(path, lambda problem=problem: detector_shifts(problem()))["elements"]
        for name, method in methods.items():

            def compute(name: str = name, method: Reconstructor = method, problem: Any = problem) -> Record:
                return score_json(score(name, method, problem(), samples=1))

            path = arguments.work / f"{content_name(f'{case.name} {name}', *identity, described[name])}.json"
            cells[case.name, name] = cached_json(path, compute)
            print(f"{case.name}, {name}: {np.mean(cells[case.name, name]['psnr_db']):.2f} dB", flush=True)
    wrong_noise = [case.name for case in CASES if case.photons != 1 and not case.told]
    return {
        "settings": {
            "pack": pack.path.name, "every": arguments.every, "slices": len(pack), "scan": nominal.name,
            "seed": arguments.seed, "precision": arguments.precision, "batch_size": arguments.batch_size,
            "simulation_refinement": 2, "data_range_hu": RANGE_HU, "faulty_elements": FAULTY,
            "cases": [asdict(case) for case in CASES], "methods": described,
        },
        "against_exact": [row_against(cells, case.name, EXACT, name) for case in CASES for name in names],
        "against_told": [row_against(cells, case, f"{case}, told", name) for case in wrong_noise for name in names],
        "detector_shift_elements": shifts,
        "slices": [{"case": case, "method": method, "values": cell} for (case, method), cell in cells.items()],
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = experiment_parser(__doc__)
    add_data_arguments(parser, every=16)
    parser.add_argument("--scan", default="parallel60_1e5", help="name of the nominal scan")
    parser.add_argument("--method", action="append", choices=tuple(METHODS), help="repeat; default: all")
    parser.add_argument("--batch-size", type=int, default=4, help="slices in a batch")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--work", type=Path, default=Path("runs/robustness"), help="folder of finished cells")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the tables")
    add_network_arguments(parser, precision="bfloat16")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    record = run(arguments)
    write_result(arguments.out, "robustness", record, markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
