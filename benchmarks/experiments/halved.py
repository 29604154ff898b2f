"""Halved CT slices (128 x 128) and a prior for them: the starting point of the experiments with trained networks.

The prior is trained from the weights of the shipped one for 256 x 256.

Run: python benchmarks/experiments/halved.py --out runs/halved    (again to resume; DEFT_CT_DATA names the data folder)
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from deft_ct.ct.pairs import augment_slices
from deft_ct.datasets.halved import halved_pack
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import Prior, load_prior, save_prior
from deft_ct.diffusion.train import PriorSpec, train_prior
from deft_ct.networks import UNet
from deft_ct.training import TrainingConfig
from deft_ct.workflows.experiments.arguments import add_training_arguments, experiment_parser, training_config

DATASETS = ("train", "val", "test_singles")


def halved_prior(folder: Path, training: TrainingConfig) -> Prior:
    """The prior in ``folder / "prior"``; it is trained if it is missing.

    A finished training is read from its checkpoint.

    Raises:
        OtherContentError: the folder holds a training on other slices, or with other settings.
    """
    target = folder / "prior"
    first = load_prior(None)
    assert isinstance(first.network, UNet) and first.value_range is not None
    source = CTPack(halved_pack(folder, "train"))
    side = source.image_shape[0]
    initial = Prior(
        first.network, first.schedule, prediction=first.prediction, value_range=first.value_range,
        image_shape=(1, side, side),
    )  # fmt: skip
    began = time.process_time()
    made = train_prior(
        source, folder / "prior_training",
        spec=PriorSpec(
            network=first.network.config, schedule=first.schedule, value_range=first.value_range,
            image_shape=(1, side, side),
        ),
        training=training, augment=augment_slices, initial=initial, progress=False,
    )  # fmt: skip
    if (target / "deft_ct.json").is_file() and (kept := load_prior(target)).content_hash() == made.content_hash():
        return kept  # its card has the time of the training
    made.card |= {
        "training_steps": training.steps, "batch_size": training.batch_size, "seed": training.seed,
        "seconds": round(time.process_time() - began), "initial_sha256": first.content_hash(),
    }  # fmt: skip
    save_prior(made, target)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Write the datasets and train the prior."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/halved"))
    add_training_arguments(parser, steps=1600, learning_rate=1e-3)
    arguments = parser.parse_args(argv)
    for name in DATASETS:
        halved_pack(arguments.out, name)
    prior = halved_prior(arguments.out, training_config(arguments, ema_decay=0.997))
    print(json.dumps({"prior": prior.content_hash(), "card": prior.card}))


if __name__ == "__main__":
    main()
