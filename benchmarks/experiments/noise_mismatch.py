"""Two likelihoods for Poisson data: constant Gaussian variance, and the Poisson weights of the same data.

A known weakness of diffusion methods on CT: a Gaussian data term with constant variance trusts rays that few photons
passed as much as all others. Each method reconstructs low-dose sinograms of validation slices twice, with the same data
and seed: once with the noise model that made the data, once with white noise of the same mean variance. A method with
a strength is run for a grid of values, and each likelihood gets the value with the highest mean PSNR, so the difference
does not come from tuning.

Run: python benchmarks/experiments/noise_mismatch.py --json benchmarks/results/noise_mismatch.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.problem import Batch
from deft_ct.evaluation.score import Score, score, score_json
from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.method_text import method_variants
from deft_ct.operators.noise import GaussianNoise
from deft_ct.problems.ct import CTProblem
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.atomic import write_text
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    build_method,
    experiment_parser,
    networks_from,
)
from deft_ct.workflows.experiments.measures import RANGE_HU

METHODS = ("tv:strength=25|80|250", "dds:steps=20,start=0.1", "diffpir:steps=20,start=0.1,strength=10|100")
KINDS = ("constant", "weighted")


def with_constant_variance(problem: CTProblem) -> CTProblem:
    """The same data with white noise as their model: for each slice, the mean of its Poisson variances.

    Args:
        problem: one slice in each batch.
    """
    batches = []
    for y, measurement, names in problem.batches:
        sigma = float(measurement.noise.weights(y).reciprocal().mean().sqrt())
        white = Measurement(measurement.operator, GaussianNoise(sigma), units=measurement.units)
        batches.append(Batch(y, white, names))
    return problem.with_batches(batches)


def best(methods: Mapping[str, Reconstructor], problem: CTProblem, samples: int) -> tuple[str, Score]:
    """The variant with the highest mean PSNR, and its score."""
    scores = {text: score(text, method, problem, samples=samples) for text, method in methods.items()}
    text = max(scores, key=lambda key: float(np.mean(scores[key].values["psnr"])))
    return text, scores[text]


def markdown(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """PSNR and RMSE of every method with both likelihoods."""
    headings = [
        "photons", "method", "PSNR, constant variance (dB)", "PSNR, Poisson weights (dB)",
        "RMSE in body (HU), constant", "RMSE in body (HU), weights",
    ]  # fmt: skip
    body = []
    for row in rows:
        found = [row[kind]["values"] for kind in KINDS]
        psnr = [f"{np.mean(values['psnr_db']):.2f}" for values in found]
        rmse = [f"{np.nanmean(np.array(values['rmse_body_hu'], float)):.1f}" for values in found]
        body.append([f"{row['photons']:g}", row["method"], *psnr, *rmse])
    return (
        markdown_table(headings, body, align="rlrrrr")
        + f"\n\nDataset {settings['pack']}, every {settings['every']}: n = {settings['slices']} slices, "
        f"{settings['views']} parallel views, seed {settings['seed']}. PSNR of the whole slice, data range "
        f"{RANGE_HU:g} HU. Both likelihoods see the same data and seed.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write the values of every slice."""
    parser = experiment_parser(__doc__)
    add_data_arguments(parser, every=85)
    parser.add_argument("--photons", type=float, action="append", help="photon count; repeat. Default: 1e3 and 1e4")
    parser.add_argument("--method", action="append", help="method with options; alternatives as 'strength=80|250'")
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--samples", type=int, default=1, help="posterior samples of each slice")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--json", type=Path, help="file for the values of every slice")
    add_network_arguments(parser)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    networks, pack = networks_from(arguments), read_pack(arguments.data, arguments.every)
    rows = []
    for count in arguments.photons or (1e3, 1e4):
        scan = Scan(views=arguments.views, photons=count)
        problem = CTProblem(pack, scan, seed=arguments.seed, batch_size=1)  # one variance for each slice
        problems = {"constant": with_constant_variance(problem), "weighted": problem}
        for text in arguments.method or METHODS:
            methods = {one: build_method(networks, one) for one in method_variants(text)}
            found: dict[str, Any] = {"photons": count, "method": text.partition(":")[0]}
            for kind in KINDS:
                chosen, result = best(methods, problems[kind], arguments.samples)
                found[kind] = {"options": chosen, "values": score_json(result)}
                print(f"{count:g} photons, {kind}: {chosen} {np.mean(result.values['psnr']):.2f} dB", flush=True)
            rows.append(found)
    settings = {
        "pack": pack.path.name, "every": arguments.every, "slices": len(pack), "views": arguments.views,
        "samples": arguments.samples, "seed": arguments.seed, "simulation_refinement": 2, "data_range_hu": RANGE_HU,
    }  # fmt: skip
    print(markdown(rows, settings))
    if arguments.json is not None:
        text = json.dumps({"settings": settings, "rows": rows}, indent=1, allow_nan=False)
        write_text(arguments.json, text + "\n")


if __name__ == "__main__":
    main()
