"""DEFT against the exact posterior of photographs' Gaussian, task by task, each with an h-transform of its own.

The prior is exact, so the gap to the exact posterior mean is that of the trained network alone. An exact posterior
sample lies 3 dB below the exact mean. Truths and data are not those of the training.

Each h-transform and each row is kept in --work and --json, and a run with the same settings continues.

Run: python benchmarks/experiments/gaussian_deft.py --data ../shared/data/photos/crops64.h5 --work runs/gaussian-deft \
    --json benchmarks/results/gaussian_deft.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import HTransform, load_htransform, save_htransform
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.train import train_htransform
from deft_ct.training import TrainingConfig
from deft_ct.workflows.experiments.gaussian_photographs import (
    LINEAR_TASKS,
    SHAPE,
    GaussianImages,
    GaussianPairs,
    PhotographGaussian,
    linear_task,
)
from deft_ct.workflows.experiments.photograph_rows import DATA_RANGE, StoredRows, image_psnr
from deft_ct.workflows.train_networks import HTransformRecipe
from deft_ct.workflows.train_photographs import photograph_config

TRAINING_SEED = 1_000_000
"""Seed of the first training image; the truths have small seeds."""
TRAINING_IMAGES = 100_000
METHODS = {
    "mean": DEFTConfig(estimate="mean"),
    "sample": DEFTConfig(estimate="samples", eta=1.0),
}


def trained(world: PhotographGaussian, prior: Prior, task: str, folder: Path, recipe: HTransformRecipe) -> HTransform:
    """The h-transform of a task, trained once."""
    finished = folder / "htransform"
    if (finished / "htransform.json").is_file():
        return load_htransform(finished)
    pairs = GaussianPairs(GaussianImages(world, TRAINING_IMAGES, TRAINING_SEED), [linear_task(task)])
    config = photograph_config(pairs, prior, recipe)
    made = train_htransform(pairs, prior, folder, config=config, training=recipe.training, progress=False)
    save_htransform(made, finished, dtype=torch.float32)
    return load_htransform(finished)


def measured(
    prior: Prior, heads: Mapping[str, HTransform], measurement: Measurement, y: Tensor, truth: Tensor
) -> dict[str, Any]:
    """PSNR, seconds and evaluations of DEFT's mean and of one sample, for each h-transform."""
    row: dict[str, Any] = {}
    for name, head in heads.items():
        for kind, config in METHODS.items():
            began = time.process_time()
            result = DEFT(prior, head, config).reconstruct(y, measurement)
            row[f"{name}{kind}"] = {
                "psnr_db": image_psnr(result.mean, truth),
                "cpu_seconds_per_image": round((time.process_time() - began) / len(y), 4),
                "evaluations": result.provenance["network_evaluations_per_image"],
            }
    return row


def markdown(rows: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """Exact mean of each task, and the gaps of DEFT to it."""
    wanted = ("untrained mean", "untrained sample", *METHODS)
    names = [name for name in wanted if all(name in row for row in rows.values())]
    table = []
    for task, row in rows.items():
        exact = float(np.mean(row["exact"]["psnr_db"]))
        gaps = [float(np.mean(row[name]["psnr_db"])) - exact for name in names]
        table.append([task, f"{exact:.2f}", *(f"{gap:+.2f}" for gap in gaps), str(row["training_cpu_seconds"])])
    head = markdown_table(
        ["task", "exact mean", *names, "training (CPU s)"], table, align="lr" + "r" * len(names) + "r"
    )
    return (
        f"{head}\n\nPSNR (dB) of the exact posterior mean, data range {DATA_RANGE:g}, nothing clipped, and the gaps of "
        f"DEFT to it after {settings['training']['steps']} training steps of "
        f"{settings['training']['batch_size']} images. n = {settings['images']}, seed {settings['seed']}. "
        "An exact posterior sample has a gap of -3.01.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write the values of every image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file of crops, photos/crops64.h5")
    parser.add_argument("--task", action="append", choices=list(LINEAR_TASKS), help="repeat; default: all")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--channels", default="32,64")
    parser.add_argument("--untrained", action="store_true", help="also measure the h-transforms before their training")
    parser.add_argument("--work", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--json", type=Path, help="file for the values of every image; continued if it is there")
    arguments = parser.parse_args(argv)
    world = PhotographGaussian.fit(arguments.data)
    prior = world.prior()
    training = TrainingConfig(
        steps=arguments.steps, batch_size=arguments.batch_size, learning_rate=2e-3, optimizer="muon",
        warmup=min(20, arguments.steps), ema_decay=0.98, seed=arguments.seed,
    )  # fmt: skip
    recipe = HTransformRecipe(training=training, channels=arguments.channels)
    settings = {
        "data": arguments.data.name, "images": arguments.images, "seed": arguments.seed, "shape": list(SHAPE),
        "prior_sha256": prior.content_hash(), "channels": arguments.channels,
        "training": {name: asdict(training)[name] for name in ("steps", "batch_size", "learning_rate", "optimizer")},
    }  # fmt: skip
    stored = StoredRows.open(arguments.json, settings)
    rows = stored.rows
    truth = world.draw(arguments.images, arguments.seed)
    for task in arguments.task or LINEAR_TASKS:
        if task in rows:
            continue
        measurement = linear_task(task)
        y = measurement.simulate(truth, seed=arguments.seed)
        began = time.process_time()
        head = trained(world, prior, task, arguments.work / task, recipe)
        seconds = round(time.process_time() - began)
        heads = {"": head}
        if arguments.untrained:
            heads["untrained "] = HTransform(head.config, head.schedule, prior_hash=prior.content_hash())
        exact = image_psnr(world.posterior_means(measurement, measurement.noise.to_dict()["sigma"], y), truth)
        rows[task] = {
            "exact": {"psnr_db": exact}, "training_cpu_seconds": seconds, "htransform_sha256": head.content_hash(),
            **measured(prior, heads, measurement, y, truth),
        }  # fmt: skip
        print(markdown({task: rows[task]}, settings), flush=True)
        stored.write()
    print(markdown(rows, settings))


if __name__ == "__main__":
    main()
