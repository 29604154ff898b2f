"""Poisson data, two likelihoods: constant Gaussian variance against the Poisson weights of the same data.

The known failure of diffusion methods on CT: a Gaussian data term trusts the rays that hardly any photon passed as much
as all others. Low-dose sinograms (post-log) of validation slices are reconstructed by each method twice, with the same
data and seed: once with the noise model that made them (statistical weights), once with white noise of the same mean
variance, taken from the same data. A method with a strength is run over a grid of it, and each likelihood is given its
best by mean PSNR, so that the difference is not one of tuning. Run:

    python benchmarks/experiments/noise_mismatch.py --json benchmarks/results/noise_mismatch.json
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from deft_ct.cli import options as opt
from deft_ct.ct.scan import Scan
from deft_ct.evaluation.problem import Problem, Score, prepare, score, score_json
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import Networks
from deft_ct.operators.noise import GaussianNoise
from deft_ct.reconstructor import Reconstructor

METHODS = ("tv:strength=25|80|250", "dds:steps=20,start=0.1", "diffpir:steps=20,start=0.1,strength=10|100")
DATA_RANGE_HU = 2000.0


def with_constant_variance(problem: Problem) -> Problem:
    """The same data with white noise as their model: for each slice, the mean of its Poisson variances.

    Args:
        problem: one slice to a batch.
    """
    batches = []
    for y, measurement, names in problem.batches:
        sigma = float(measurement.noise.weights(y).reciprocal().mean().sqrt())
        white = Measurement(measurement.operator, GaussianNoise(sigma), units=measurement.units)
        batches.append((y, white, names))
    return dataclasses.replace(problem, batches=batches)


def variants(text: str) -> list[str]:
    """``"tv:strength=1|2"`` as ``["tv:strength=1", "tv:strength=2"]``."""
    name, _, rest = text.partition(":")
    found = [name + ":"]
    for item in filter(None, rest.split(",")):
        key, _, values = item.partition("=")
        found = [
            f"{one}{'' if one.endswith(':') else ','}{key}={value}" for one in found for value in values.split("|")
        ]
    return [one.removesuffix(":") for one in found]


def best(solvers: Mapping[str, Reconstructor], problem: Problem, samples: int) -> tuple[str, Score]:
    """The variant of highest mean PSNR, and its score."""
    scores = {
        text: score(text, solver, problem, samples=samples, data_range_hu=DATA_RANGE_HU)
        for text, solver in solvers.items()
    }
    text = max(scores, key=lambda key: float(np.mean(scores[key].metrics.psnr)))
    return text, scores[text]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| photons | method | PSNR, constant variance (dB) | PSNR, Poisson weights (dB) | RMSE in body (HU), constant |"
        " RMSE in body (HU), weights |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        constant, weighted = (row[key]["values"] for key in ("constant", "weighted"))
        cells = [
            f"{np.mean(constant['psnr_db']):.2f}", f"{np.mean(weighted['psnr_db']):.2f}",
            f"{np.nanmean(np.array(constant['rmse_body_hu'], float)):.1f}",
            f"{np.nanmean(np.array(weighted['rmse_body_hu'], float)):.1f}",
        ]  # fmt: skip
        lines.append(f"| {row['photons']:g} | {row['method']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    photons: Annotated[list[float] | None, typer.Option(help="Photon counts. Repeat. Default: 1e3, 1e4.")] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Method with options; alternatives as 'strength=80|250'.")
    ] = None,
    views: opt.Views = 60,
    data: opt.Data = "val",
    every: opt.Every = 85,
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)] = 1,
    out: Annotated[Path | None, typer.Option("--json", help="Where the figures of every slice go.")] = None,
) -> None:
    """Print the table and write the figures."""
    torch.set_num_threads(threads)
    builder = Networks(prior=prior, htransform=htransform, models={})
    pack = opt.read_pack(data, every)
    rows = []
    for count in photons or (1e3, 1e4):
        problem = prepare(pack, Scan(views=views, photons=count), seed=seed, batch_size=1)
        flat = with_constant_variance(problem)
        for text in methods or METHODS:
            solvers = {one: builder.build(*opt.parse_method(one)) for one in variants(text)}
            found: dict[str, Any] = {"photons": count, "method": text.partition(":")[0]}
            for kind, data_of in (("constant", flat), ("weighted", problem)):
                chosen, result = best(solvers, data_of, samples)
                found[kind] = {"options": chosen, "values": score_json(result)}
                typer.echo(f"{count:g} photons, {kind}: {chosen} {np.mean(result.metrics.psnr):.2f} dB")
            rows.append(found)
    settings = {
        "pack": pack.path.name, "every": every, "slices": len(pack), "views": views, "samples": samples, "seed": seed,
        "simulation_refinement": 2, "data_range_hu": DATA_RANGE_HU,
    }  # fmt: skip
    typer.echo(table(rows))
    typer.echo(
        f"Pack {pack.path.name}, every {every}: n = {len(pack)} slices, {views} parallel views, seed {seed}; PSNR of "
        f"the whole slice, data range {DATA_RANGE_HU:g} HU; the same data and seed for both likelihoods."
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
