"""What the spread costs: DEFT's mean alone, with the spread network, and with the spread of samples.

    python benchmarks/speed/spread.py --data val --every 64 --json benchmarks/results/spread_cost.json

All reconstruct the same slices in turn, slice by slice. Times are the medians over slices and rounds, with the ratio to
the mean alone of the same slice and round.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.methods.registry import load_reconstructor
from deft_ct.problems.ct import CTProblem
from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.machine import processor_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="val")
    parser.add_argument("--every", type=int, default=64)
    parser.add_argument("--scan", default="parallel60_1e5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    problem = CTProblem(read_pack(arguments.data, arguments.every), Scan.from_name(arguments.scan), batch_size=1)
    solvers = {
        "mean alone": (load_reconstructor("deft", spread="samples"), 0),
        "mean and spread network": (load_reconstructor("deft"), 0),
        "mean and 4 samples": (load_reconstructor("deft", spread="samples"), 4),
    }
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    for round_number in range(arguments.rounds + 1):  # the first warms up
        for y, measurement, image_ids in problem.batches:
            for name, (solver, samples) in solvers.items():
                began = time.perf_counter()
                solver.reconstruct(y, measurement, num_samples=samples, image_ids=image_ids)
                if round_number:
                    seconds[name].append(time.perf_counter() - began)
    alone = np.array(seconds["mean alone"])
    found = {
        name: {
            "seconds": float(np.median(values)), "ratio": float(np.median(np.array(values) / alone)),
        }
        for name, values in seconds.items()
    }  # fmt: skip
    record = {
        "data": problem.data, "slices": len(problem), "scan": arguments.scan, "rounds": arguments.rounds,
        "threads": torch.get_num_threads(), "processor": processor_name(), "times": found,
    }  # fmt: skip
    print(json.dumps(record, indent=1))
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
