"""Real CT at half the resolution: packs of 128 x 128 slices, a prior for them, and scans that fit.

A slice costs a quarter of what it costs at 256 x 256, so that many heads can be trained to convergence on one core. The
slices are 2 x 2 means of those of the packs, and the prior goes on from the shipped one for 256 x 256.

Run: python benchmarks/experiments/halved.py --out runs/halved    (run again to resume;
DEFT_CT_DATA names the data packs)
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from deft_ct.ct.pairs import augment_slices
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.diffusion import Prior, load_prior, save_prior
from deft_ct.diffusion.train import PriorSpec, train_prior
from deft_ct.networks import UNet
from deft_ct.training import TrainingConfig

PACKS = ("train", "val", "test_singles")


def halve(source: Path, target: Path) -> Path:
    """Write a pack of the 2 x 2 means of the slices of another: half the side, twice the pixel; the rest as it was."""
    part = target.with_suffix(".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source) as given, h5py.File(part, "w") as made:
        made.attrs.update({key: value for key, value in given.attrs.items() if key != "description"})
        made.attrs["description"] = "2x2 means of: " + str(given.attrs.get("description", source.name))
        for name in given:
            group = made.create_group(name)
            for key, value in given[name].attrs.items():
                group.attrs[key] = 2 * value if key == "pixel_mm" else value
            hu = given[name]["hu"][...].astype(np.float32)
            count, rows, columns = hu.shape
            means = hu.reshape(count, rows // 2, 2, columns // 2, 2).mean((2, 4))
            group.create_dataset("hu", data=np.rint(means).astype(np.int16), compression="gzip")
            if "z_mm" in given[name]:
                group["z_mm"] = given[name]["z_mm"][...]
    part.replace(target)
    return target


def halved_pack(folder: Path, name: str) -> Path:
    """The halved pack ``name`` in ``folder``, written if it is not there yet."""
    target = folder / f"{name}.h5"
    return target if target.is_file() else halve(data_root() / "ct256" / f"{name}.h5", target)


def halved_scan(scan: Scan | str) -> Scan:
    """A scan with half the detector elements, each as wide as a pixel and so twice as wide as before."""
    full = Scan.from_name(scan) if isinstance(scan, str) else scan
    return replace(full, detectors=full.detectors // 2) if full.geometry == "parallel" else full


def halved_prior(folder: Path, training: TrainingConfig) -> Prior:
    """The prior of halved slices in ``folder / "prior"``, trained on from the shipped one if it is not there yet."""
    target = folder / "prior"
    if (target / "deft_ct.json").is_file():
        return load_prior(target)
    first = load_prior(None)
    assert isinstance(first.network, UNet) and first.value_range is not None
    source = CTPack(halved_pack(folder, "train"))
    side = source.image_shape[0]
    initial = Prior(
        first.network,
        first.schedule,
        prediction=first.prediction,
        value_range=first.value_range,
        image_shape=(1, side, side),
    )
    began = time.process_time()
    made = train_prior(
        source, folder / "prior_training",
        spec=PriorSpec(
            network=first.network.config, schedule=first.schedule, value_range=first.value_range,
            image_shape=(1, side, side),
        ),
        training=training, augment=augment_slices, initial=initial, progress=False,
    )  # fmt: skip
    made.card |= {
        "training_steps": training.steps, "batch_size": training.batch_size, "seed": training.seed,
        "seconds": round(time.process_time() - began), "initial_sha256": first.content_hash(),
    }  # fmt: skip
    save_prior(made, target)
    return made


def main() -> None:
    """Write the packs and train the prior."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/halved"))
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in PACKS:
        halved_pack(options.out, name)
    training = TrainingConfig(
        steps=options.steps, batch_size=options.batch_size, learning_rate=options.learning_rate,
        optimizer=options.optimizer, ema_decay=0.997, warmup=50, precision=options.precision, seed=options.seed,
        checkpoint_minutes=1.0,
    )  # fmt: skip
    prior = halved_prior(options.out, training)
    print(json.dumps({"prior": prior.content_hash(), "card": prior.card}))


if __name__ == "__main__":
    main()
