"""What a GPU is for, in stages: checks, timings, and the training of the shipped networks. See CONTRIBUTING.

    python scripts/gpu_bundle.py pack   --packs DIR --data ../shared/data     # here: make the files that travel
    python scripts/gpu_bundle.py check  --packs DIR --out OUT                 # there: versions, correctness, speed
    python scripts/gpu_bundle.py train  --packs DIR --out OUT --minutes 7     # there: the unrolled reconstruction
    python scripts/gpu_bundle.py prior  --packs DIR --out OUT --minutes 4 --domain photos   # or ct

`--rehearse` runs each stage with tiny networks and a few slices on any machine. Everything is written to OUT at once.
The length of a training is a time, not a number of steps, so its result depends on the machine.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from gpu_stages.checks import check
from gpu_stages.trainings import prior, train

from deft_ct.ct.compact_packs import write_compact
from deft_ct.operators.ct.backends import matrix as matrix_backend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["pack", "check", "train", "prior"])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "out")))
    parser.add_argument("--work", type=Path, help="checkpoints, which are too large to travel; OUT/work if left out")
    parser.add_argument("--initial", type=Path, help="folder with the weights that an earlier call has written")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--domain", choices=["ct", "photos"], default="photos")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--geometries", type=int, default=24)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    if arguments.stage == "pack":
        pack(arguments.data, arguments.packs)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.work = arguments.work or arguments.out / "work"
    torch.set_float32_matmul_precision("high")
    matrix_backend.KEPT_SHARE = 0.7
    {"check": check, "train": train, "prior": prior}[arguments.stage](arguments)


def pack(data: Path, out: Path) -> None:
    """Make the files that travel."""
    out.mkdir(parents=True, exist_ok=True)
    write_compact([data / "ct256/train.h5", data / "ct256/train_more.h5"], out / "ct256.npz")
    write_compact([data / "ct512/train.h5"], out / "ct512.npz")


if __name__ == "__main__":
    main()
