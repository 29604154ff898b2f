"""One h-transform for several degradations of photographs against one for each, at the same number of steps in total.

The shared network is told the degradation by the images that the operator declares and by the guidance. Each single
network gets STEPS steps; the shared one gets STEPS for each task. Networks and rows are kept in --work and --json, and
a run with the same settings continues.

Run: python benchmarks/experiments/amortised_photographs.py --data photos:../shared/data/photos/crops64.h5 \
    --prior PRIOR --work runs/amortised --json benchmarks/results/amortised_photographs.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.datasets.photographs import photographs
from deft_ct.diffusion import Prior, load_prior
from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import HTransform, load_htransform, save_htransform
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.training import TrainingConfig
from deft_ct.workflows.experiments.photograph_rows import DATA_RANGE, StoredRows, image_psnr
from deft_ct.workflows.train_networks import HTransformRecipe
from deft_ct.workflows.train_photographs import DegradedPhotographs, htransform_on_photographs, parse_operators
from deft_ct.workflows.train_priors import ImageDomain, image_domain

TASKS = "sr4+inpaint_random+gaussian_blur+motion_blur"
KINDS = {"mean": DEFTConfig(), "sample": DEFTConfig(estimate="samples", eta=1.0)}


def trained(domain: ImageDomain, text: str, folder: Path, recipe: HTransformRecipe) -> HTransform:
    """The h-transform of one task, or of several that are joined by a plus; trained once."""
    if not (folder / "htransform" / "htransform.json").is_file():
        data = DegradedPhotographs(domain=domain, tasks=parse_operators(text))
        save_htransform(htransform_on_photographs(data, folder, recipe), folder / "htransform", dtype=torch.float32)
    return load_htransform(folder / "htransform")


def measured(prior: Prior, head: HTransform, measurement: Measurement, truth: Tensor, seed: int) -> dict[str, Any]:
    """PSNR of DEFT's mean and of one sample."""
    y = measurement.simulate(truth, seed=seed)
    return {
        kind: {"psnr_db": image_psnr(DEFT(prior, head, config).reconstruct(y, measurement, seed=seed).mean, truth)}
        for kind, config in KINDS.items()
    }


def markdown(rows: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """The table of all tasks."""
    table = []
    for task, row in rows.items():
        means = [float(np.mean(row[net][kind]["psnr_db"])) for kind in KINDS for net in ("single", "shared")]
        table.append([task, *(f"{value:.2f}" for value in means)])
    names = [f"{kind}, {net}" for kind in KINDS for net in ("single", "shared")]
    return (
        f"{markdown_table(['task', *names], table, align='l' + 'r' * len(names))}\n\nPSNR (dB), data range "
        f"{DATA_RANGE:g}, nothing clipped; n = {settings['images']} held-out images of {settings['data']}, seed "
        f"{settings['seed']}. {settings['steps']} training steps of {settings['batch_size']} images for each task, in "
        "networks of their own or in a shared one.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write the values of every image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="photos:FILE of crops with a training and a test part")
    parser.add_argument("--prior", required=True, help="folder or name of the prior")
    parser.add_argument("--operator", default=TASKS, help="tasks, joined by a plus")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--channels", default="32,64")
    parser.add_argument("--work", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--json", type=Path, help="file for the values of every image; continued if it is there")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    prior, domain = load_prior(arguments.prior), image_domain(arguments.data)
    held_out = photographs(arguments.data, "test")
    every = max(1, len(held_out) // arguments.images)
    truth = torch.stack([held_out[every * n] for n in range(min(arguments.images, len(held_out)))])
    settings = {
        "data": Path(arguments.data).name, "images": len(truth), "seed": arguments.seed, "steps": arguments.steps,
        "batch_size": arguments.batch_size, "channels": arguments.channels, "operators": arguments.operator,
        "prior_sha256": prior.content_hash(),
    }  # fmt: skip
    stored = StoredRows.open(arguments.json, settings)
    rows = stored.rows
    tasks = parse_operators(arguments.operator)
    training = TrainingConfig(
        steps=arguments.steps, batch_size=arguments.batch_size, learning_rate=2e-3, optimizer="muon",
        warmup=min(20, arguments.steps), ema_decay=0.98, seed=arguments.seed,
    )  # fmt: skip
    recipe = HTransformRecipe(training=training, prior=arguments.prior, channels=arguments.channels)
    together = replace(recipe, training=replace(training, steps=arguments.steps * len(tasks)))
    began = time.process_time()
    shared = trained(domain, arguments.operator, arguments.work / "shared", together)
    print(f"shared: {time.process_time() - began:.0f} CPU s", flush=True)
    for task in tasks:
        if task.text in rows:
            continue
        single = trained(domain, task.text, arguments.work / task.label, recipe)
        measurement = Measurement(*task.build(domain.image_shape, seed=arguments.seed))
        rows[task.text] = {
            "single": measured(prior, single, measurement, truth, arguments.seed),
            "shared": measured(prior, shared, measurement, truth, arguments.seed),
        }
        print(markdown({task.text: rows[task.text]}, settings), flush=True)
        stored.write()
    print(markdown(rows, settings))


if __name__ == "__main__":
    main()
