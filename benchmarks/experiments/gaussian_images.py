"""Every method against the exact posterior mean of photographs' Gaussian, task by task.

A Gaussian is fitted to crops of photographs, and the truths are drawn from it. It is diagonal after a colour and a
cosine transform, so its diffusion prior is exact and cheap, and the posterior mean of every linear measurement is
known. What separates a method from it is therefore the method alone. An exact posterior sample lies 3 dB below the
exact mean.

Each pair of task and method is stored when it is done, and a run with the same settings continues.

Run: python benchmarks/experiments/gaussian_images.py --data ../shared/data/photos/crops64.h5 \
    --json benchmarks/results/gaussian_images.json
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import Networks
from deft_ct.reconstructor import Reconstructor, UnsupportedError
from deft_ct.workflows.experiments.arguments import build_method
from deft_ct.workflows.experiments.gaussian_photographs import (
    COMMON_SIGMA,
    LINEAR_TASKS,
    SIDE,
    SIGMA,
    PhotographGaussian,
    linear_task,
)
from deft_ct.workflows.experiments.photograph_rows import DATA_RANGE, StoredRows, image_psnr

METHODS = (
    "fbp", "cgls", "sirt", "tikhonov", "tv", "ddrm", "ddnm", "dds", "diffpir", "pigdm", "dps", "daps", "reddiff",
    "deft",
)  # fmt: skip


def run_method(method: Reconstructor, y: Tensor, measurement: Measurement, truth: Tensor, seed: int) -> dict[str, Any]:
    """PSNR of the answer, seconds and evaluations for each image, and what the method warned of."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = method.reconstruct(y, measurement, seed=seed)
        except UnsupportedError as refusal:
            return {"refused": str(refusal)}
        except FloatingPointError as failure:
            return {"failed": str(failure)}
    return {
        "psnr_db": image_psnr(result.mean, truth),
        "seconds_per_image": round((time.perf_counter() - began) / len(y), 4),
        "evaluations": result.provenance["network_evaluations_per_image"],
        "sampled": result.samples is not None,
        "warnings": sorted({str(one.message)[:200] for one in caught}),
    }


def markdown(cells: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """Exact mean of each task, and the gap of each method to it."""
    tasks = [task for task in settings["tasks"] if task in cells]
    rows = []
    for name in ["exact", *settings["methods"]]:
        row = [name]
        for task in tasks:
            cell = cells[task].get(name)
            if cell is None:
                row.append("")
            elif "psnr_db" not in cell:
                row.append("refused" if "refused" in cell else "diverged")
            else:
                mean = float(np.mean(cell["psnr_db"]))
                exact = float(np.mean(cells[task]["exact"]["psnr_db"]))
                row.append(f"{mean:.2f}" if name == "exact" else f"{mean - exact:+.2f}")
        rows.append(row)
    head = markdown_table(["method", *tasks], rows, align="l" + "r" * len(tasks))
    return (
        f"{head}\n\nFirst row: PSNR (dB) of the exact posterior mean, data range {DATA_RANGE:g}, nothing clipped; "
        f"below it the gap of one answer of each method at its defaults. n = {settings['images']} images of {SIDE} x "
        f"{SIDE} RGB drawn from the Gaussian, noise of standard deviation {COMMON_SIGMA:g} (denoise: "
        f"{SIGMA['denoise']:g}), seed {settings['seed']}. An exact posterior sample has a gap of -3.01.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write the values of every image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file of crops, photos/crops64.h5")
    parser.add_argument("--task", action="append", choices=list(LINEAR_TASKS), help="repeat; default: all")
    parser.add_argument("--method", action="append", help="name[:key=value,...]; repeat. Default: all")
    parser.add_argument("--htransforms", type=Path, help="folder of the h-transforms of deft, one folder for each task")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the values of every image; continued if it is there")
    arguments = parser.parse_args(argv)
    methods, tasks = list(arguments.method or METHODS), list(arguments.task or LINEAR_TASKS)
    world = PhotographGaussian.fit(arguments.data)
    truth = world.draw(arguments.images, arguments.seed)
    fixed = {
        "data": arguments.data.name, "images": arguments.images, "seed": arguments.seed,
        "prior_sha256": world.prior().content_hash(),
    }  # fmt: skip
    stored = StoredRows.open(arguments.json, fixed)
    cells: dict[str, dict[str, Any]] = stored.rows
    settings = fixed | {"tasks": tasks, "methods": methods}
    for task in tasks:
        head = None if arguments.htransforms is None else arguments.htransforms / task
        networks = Networks(prior=world.prior(), htransform=head)
        sigma, measurement = SIGMA.get(task, COMMON_SIGMA), linear_task(task)
        y = measurement.simulate(truth, seed=arguments.seed)
        found = cells.setdefault(task, {})
        if "exact" not in found:
            found["exact"] = {"psnr_db": image_psnr(world.posterior_means(measurement, sigma, y), truth)}
        for text in methods:
            if text not in found and not (text.startswith("deft") and head is None):
                method = build_method(networks, text)
                if hasattr(method.config, "batch_size"):  # changes speed and not results
                    method.config = replace(method.config, batch_size=arguments.images)
                found[text] = run_method(method, y, measurement, truth, arguments.seed)
                outcome = found[text]
                shown = f"{np.mean(outcome['psnr_db']):.2f} dB" if "psnr_db" in outcome else str(outcome)
                print(f"{task}, {text}: {shown}", flush=True)
                stored.write(tasks=tasks, methods=methods)
    print(markdown(cells, settings))


if __name__ == "__main__":
    main()
