"""Whether more views make a better image, inside and outside of the training of the networks.

The same slices are scanned with more and more views at a fixed number of photons. TV has its preset for the most
similar scan. DEFT is measured twice: as it is, and without the description of a scan of equal dose that its networks
get outside of their training (``fallback=false``, see ``deft_ct.methods.deft.fallback``). Every cell is kept, so run
the same command again to resume.

Run: python benchmarks/experiments/more_data.py --work runs/more_data --out benchmarks/results
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.score import score, score_json
from deft_ct.evaluation.store import Record, cached_json, content_name, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.method_text import parse_method
from deft_ct.methods.registry import Networks
from deft_ct.problems.ct import CTProblem, build_for_scan
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    experiment_parser,
)
from deft_ct.workflows.experiments.measures import RANGE_HU

METHODS = ("tv", "deft", "deft:fallback=false", "learned_primal_dual")
VIEWS = (50, 100, 200, 500, 1000)
PHOTONS = (4096.0,)


def cell(problem: CTProblem, networks: Networks, text: str, work: Path) -> Record:
    """Every slice of a scan by one method, measured once."""
    name, options = parse_method(text)
    method, preset = build_for_scan(networks, name, options, problem.scan, presets=True)
    identity = problem.settings(), problem.describe_measurement(), text, asdict(method.config), method.describe()
    path = work / f"{content_name(f'{problem.name} {text}', *identity)}.json"

    def measure() -> Record:
        found = score(text, method, problem, samples=1)
        print(f"{problem.name}: {text} {np.mean(found.values['psnr']):.2f} dB", flush=True)
        return score_json(found) | {"preset": preset}

    return cached_json(path, measure)


def scan_of(photons: float, views: int) -> Scan:
    """A full parallel scan; an infinite number of photons is one without noise."""
    return Scan(views=views, photons=None if np.isinf(photons) else photons)


def psnr_of(cells: Mapping[str, Record], photons: float, views: int, text: str) -> list[float]:
    """PSNR of every slice of a cell."""
    values: list[float] = cells[f"{scan_of(photons, views).name} {text}"]["psnr_db"]
    return values


def markdown(record: Mapping[str, Any]) -> str:
    """A table of mean PSNR for each number of photons, and what more views and TV say of DEFT."""
    cells, settings = record["cells"], record["settings"]
    parts = ["# More data"]
    for photons in settings["photons"]:
        rows = [
            [text, *(f"{np.mean(psnr_of(cells, photons, views, text)):.2f}" for views in settings["views"])]
            for text in settings["methods"]
        ]
        dose = "no noise" if np.isinf(photons) else f"{photons:g} photons"
        headings = [dose, *(f"{views} views" for views in settings["views"])]
        parts += [markdown_table(headings, rows), verdict(cells, settings, photons)]
    parts.append(
        f"Mean PSNR in dB of whole slices, data range {RANGE_HU:g} HU, {settings['pack']}, every {settings['every']}: "
        f"n = {settings['slices']} slices; full parallel scans, seed {settings['seed']}; learned primal-dual is "
        f"{settings['model']}. Made by `benchmarks/experiments/more_data.py`."
    )
    return "\n\n".join(parts) + "\n"


def verdict(cells: Mapping[str, Record], settings: Mapping[str, Any], photons: float) -> str:
    """Least gain of DEFT on TV, and least gain by more views, as one sentence."""
    views = settings["views"]
    means = [float(np.mean(psnr_of(cells, photons, count, "deft"))) for count in views]
    gains = [
        float(np.min(np.subtract(psnr_of(cells, photons, count, "deft"), psnr_of(cells, photons, count, "tv"))))
        for count in views
    ]
    steps = [after - before for before, after in pairwise(means)]
    least = f" From one number of views to the next its mean gains {min(steps):+.2f} dB or more." if steps else ""
    return f"DEFT is {min(gains):+.2f} dB or more above TV on every slice.{least}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the table."""
    parser = experiment_parser(__doc__)
    add_data_arguments(parser, every=64)
    add_network_arguments(parser)
    parser.add_argument("--model", default="learned_primal_dual_any_scan", help="of learned primal-dual")
    parser.add_argument("--views", type=int, nargs="+", default=VIEWS)
    parser.add_argument("--photons", type=float, nargs="+", default=PHOTONS, help="inf: without noise")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="tv and deft must be there")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True, help="folder of the measured cells")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if missing := {"tv", "deft"} - set(arguments.methods):
        parser.error(f"--methods must name tv and deft, which are compared; {' and '.join(sorted(missing))} is missing")
    networks = Networks(
        prior=arguments.prior, htransform=arguments.htransform, precision=arguments.precision,
        models={"learned_primal_dual": arguments.model},
    )  # fmt: skip
    pack = read_pack(arguments.data, arguments.every)
    arguments.work.mkdir(parents=True, exist_ok=True)
    cells: dict[str, Record] = {}
    for photons in arguments.photons:
        for views in arguments.views:
            scan = scan_of(photons, views)
            problem = CTProblem(pack, scan, seed=arguments.seed, batch_size=arguments.batch_size)
            for text in arguments.methods:
                cells[f"{scan.name} {text}"] = cell(problem, networks, text, arguments.work)
            problem.release()
    settings = {
        "pack": pack.path.name, "every": arguments.every, "slices": len(pack), "seed": arguments.seed,
        "views": list(arguments.views), "photons": list(arguments.photons), "methods": list(arguments.methods),
        "model": arguments.model,
    }  # fmt: skip
    record = {"settings": settings, "cells": cells}
    text = markdown(record)
    print(text)
    write_result(arguments.out, "more_data", record, text)


if __name__ == "__main__":
    main()
