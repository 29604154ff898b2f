"""The training of the shipped learned primal-dual network for any scan, from the network for three scans or for any.

A script and not a command, because its range of scans is wider than that of `deft-ct train --any-scan`.

    python scripts/train_any_scan_primal_dual.py --data FOLDER --out OUT --steps 2400

FOLDER holds the training slices (packs, DICOM, NIfTI). ``--initial learned_primal_dual_any_scan --learning-rate 2e-3``
trains the network for any scan further. Half of the steps draw one of three common scans, the others one
of 96 random geometries at four photon counts each. Run the same command again to resume.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from deft_ct.ct.pairs import SlicePairs
from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange, unit_measurements
from deft_ct.datasets.dicom_folder import CTFolder
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel
from deft_ct.methods.supervised.train import train_model
from deft_ct.training import TrainingConfig
from deft_ct.workflows.train_networks import primal_dual_for_any_scan
from deft_ct.workflows.training_setup import training_card

COMMON = ("parallel60_1e5", "parallel20_1e5", "parallel60_1e5_120deg")
FAMILY = ScanRange(views=(10, 360), photons=(1e3, 1e6), any_start=True)
GEOMETRIES, NOISE_LEVELS = 96, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--initial", default="learned_primal_dual", help="model to start from")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument(
        "--average", action="store_true", help="give the mean of the weights before and after this training"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = CTFolder(arguments.data)
    named = [Scan.from_name(name) for name in COMMON]
    drawn = FAMILY.draw(GEOMETRIES, arguments.seed, levels=NOISE_LEVELS)
    measurements = unit_measurements(named + drawn, source.image_shape, float(np.median(source.pixel_mm)))
    weights = [0.5 / len(named)] * len(named) + [0.5 / len(drawn)] * len(drawn)
    pairs = SlicePairs(source, measurements, PriorRange(), weights=weights)
    shipped = PrimalDualModel.load(arguments.initial)
    start = primal_dual_for_any_scan(shipped)
    training = TrainingConfig(
        steps=arguments.steps, batch_size=4, learning_rate=arguments.learning_rate, momentum=0.9, optimizer="muon",
        warmup=50, ema_decay=0.997, precision="bfloat16", seed=arguments.seed, max_minutes=arguments.max_minutes,
    )  # fmt: skip
    model = train_model(PrimalDualModel, start.shape, pairs, arguments.out, training=training, initial=start)
    if arguments.average:
        before = start.state_dict()
        model.load_state_dict({name: torch.lerp(before[name], last, 0.5) for name, last in model.state_dict().items()})
    model.card |= {
        "scan": {
            "name": list(COMMON), "geometry": ["fan", "parallel"], "family": asdict(FAMILY), "start_degrees": "any",
            "views": list(FAMILY.views), "photons": list(FAMILY.photons), "degrees": list(FAMILY.degrees),
            "fan_degrees": list(FAMILY.fan_degrees),
        },
        "initial_sha256": shipped.content_hash(), **training_card(source, training, arguments.out),
    }  # fmt: skip
    model.save(arguments.out / "model")


if __name__ == "__main__":
    main()
