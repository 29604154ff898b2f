"""The training of an h-transform for each degradation of the suite ``photos64``, on one prior of photographs.

    nice -n 19 python scripts/train_photograph_htransforms.py --data photos:FOLDER/photos/crops64.h5 --prior PRIOR \
        --out OUT --steps 1500

Each finished network is OUT/htransforms/TASK, and checkpoints are in OUT/training/TASK. Run the same command again to
resume; finished networks stay as they are. With --max-minutes every task trains for so long at most in one run, so that
repeated runs take the tasks in turns. ``deft-ct benchmark photos64 --prior PRIOR --htransform OUT/htransforms`` uses
the network of each task.

A script and not a command, because it is a loop over `deft-ct train htransform`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from deft_ct.methods.deft import save_htransform
from deft_ct.training import TrainingConfig, training_folder
from deft_ct.workflows.train_networks import HTransformRecipe
from deft_ct.workflows.train_photographs import DegradedPhotographs, htransform_on_photographs, parse_operators
from deft_ct.workflows.train_priors import image_domain

TASKS = (
    "denoise", "inpaint_box", "inpaint_random", "inpaint_freeform", "sr4", "gaussian_blur", "motion_blur",
    "colorization", "compressed_sensing", "hdr", "phase_retrieval",
)  # fmt: skip
"""The tasks of the suite ``photos64``."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is not finished yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="photos:FILE or photos:FOLDER[:SIZE]; its training part is used")
    parser.add_argument("--prior", required=True, help="folder of the prior")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", action="append", help="NAME[:key=value,...]; repeat. Default: those of the suite")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--channels", default="32,64,96")
    parser.add_argument("--guidance", default="auto")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    domain = image_domain(arguments.data)
    training = TrainingConfig(
        steps=arguments.steps, batch_size=arguments.batch_size, learning_rate=arguments.learning_rate, optimizer="muon",
        warmup=min(50, arguments.steps), ema_decay=0.99, seed=arguments.seed, max_minutes=arguments.max_minutes,
    )  # fmt: skip
    recipe = HTransformRecipe(
        training=training, prior=arguments.prior, guidance=arguments.guidance, channels=arguments.channels
    )
    tasks = [task for text in arguments.task or TASKS for task in parse_operators(text)]
    for task in tasks:
        finished, folder = arguments.out / "htransforms" / task.label, arguments.out / "training" / task.label
        if (finished / "htransform.json").is_file():
            continue
        with training_folder(folder):
            photographs = DegradedPhotographs(domain=domain, tasks=[task])
            made = htransform_on_photographs(photographs, folder, recipe, progress=False)
        done = made.card["training_steps"]
        print(f"{task.label}: {done} of {training.steps} steps", flush=True)
        if done == training.steps:
            save_htransform(made, finished)


if __name__ == "__main__":
    main()
