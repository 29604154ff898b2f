"""Do reconstructed slices flicker? Differences of neighbouring slices, next to the differences of the truth.

Every slice is reconstructed alone. Errors that are independent from slice to slice would show as flicker when one
scrolls through a volume. The first number is the root mean square difference of neighbouring slices inside the body,
divided by the same number of the truth. The second is the correlation of the errors of neighbouring slices, 0 for
independent errors. The third is the error itself. Slices of a series that lie next to each other (the smallest distance
of the series) make a run.

Run: python benchmarks/experiments/flicker.py --data $DEFT_CT_DATA/ct512/val.h5 --half --out benchmarks/results
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack, read_pack
from deft_ct.datasets.slices import CTSlice
from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.registry import Networks
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.machine import processor_name
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    build_method,
    experiment_parser,
    networks_from,
)

METHODS = ("fbp", "tv", "deft", "deft:estimate=samples")
AIR_HU, BODY_HU = -1000.0, -500.0
Floats = NDArray[np.floating]


def runs(slices: Sequence[CTSlice], *, most: int) -> list[list[CTSlice]]:
    """The longest run of neighbouring slices of every series, at most ``most`` of them."""
    found = []
    for group in dict.fromkeys(one.group for one in slices):
        own = sorted((one for one in slices if one.group == group), key=lambda one: float(one.z_mm))
        steps = [float(b.z_mm) - float(a.z_mm) for a, b in pairwise(own)]
        parts: list[list[CTSlice]] = [own[:1]]
        for one, step in zip(own[1:], steps, strict=True):
            if math.isclose(step, min(steps), rel_tol=0.05):
                parts[-1].append(one)
            else:
                parts.append([one])
        longest = max(parts, key=len)[:most]
        if len(longest) > 2:
            found.append(longest)
    return found


def flicker(image: Floats, truth: Floats) -> dict[str, float]:
    """Numbers of one run.

    Args:
        image: ``(Z, H, W)`` in HU.
        truth: ``(Z, H, W)`` in HU; inside the body it is above -500 HU.

    Returns:
        ``rmse`` in HU, ``flicker`` relative to the truth's, and ``correlation`` of the errors of neighbours.
    """
    body = truth > BODY_HU
    both = body[1:] & body[:-1]
    error = image - truth
    change, true_change = np.diff(image, axis=0)[both], np.diff(truth, axis=0)[both]
    before, after = error[:-1][both], error[1:][both]
    return {
        "rmse": float(np.sqrt(np.mean(error[body] ** 2))),
        "flicker": float(np.sqrt(np.mean(change**2) / np.mean(true_change**2))),
        "correlation": float(np.corrcoef(before, after)[0, 1]),
    }


def measured(run: Sequence[CTSlice], solvers: dict[str, Reconstructor], *, half: bool, seed: int) -> Record:
    """All methods on one run, slice by slice."""
    images: dict[str, list[Tensor]] = {name: [] for name in solvers}
    truths = []
    for one in run:
        hu = one.hu.clamp_min(AIR_HU)[None]
        hu = torch.nn.functional.avg_pool2d(hu, 2) if half else hu
        truths.append(hu[0, 0])
        scan = Scan(views=60, photons=1e5 if half else 5e4)
        measurement = scan.measurement((hu.shape[-2], hu.shape[-1]), one.pixel_mm * (2 if half else 1))
        name = f"{one.group}/{one.index}"
        y = measurement.simulate(HounsfieldScale().to_attenuation(hu), seed=seed, image_ids=[name], refine=2)
        for label, solver in solvers.items():
            result = solver.reconstruct(y, measurement, seed=seed, image_ids=[name])
            images[label].append(result.in_units.mean[0, 0].cpu())
    truth = torch.stack(truths).numpy()
    return {label: flicker(torch.stack(found).numpy(), truth) for label, found in images.items()}


def markdown(record: Record) -> str:
    """Means over the runs."""
    table = []
    for label in record["methods"]:
        cells = [
            float(np.mean([row[label][key] for row in record["runs"]])) for key in ("rmse", "flicker", "correlation")
        ]
        table.append([label, f"{cells[0]:.1f}", f"{cells[1]:.2f}", f"{cells[2]:.2f}"])
    headings = ["method", "RMSE (HU)", "flicker / truth's", "correlation of errors"]
    return "\n\n".join([
        "# Flicker from slice to slice",
        markdown_table(headings, table, align="lrrr"),
        f"{record['pack']}, {len(record['runs'])} runs of {record['slices']} neighbouring slices in all, "
        f"{record['side']} x {record['side']} pixels, 60 parallel views, {record['photons']:g} photons, seed "
        f"{record['seed']}, inside the body. Networks in {record['precision']}. Made by "
        f"`benchmarks/experiments/flicker.py` on {record['processor']}.",
    ]) + "\n"  # fmt: skip


def with_stored(record: Record, path: Path) -> Record:
    """The record with the methods of an earlier table of the same slices in front.

    Raises:
        ValueError: the earlier table is of something else.
    """
    earlier = json.loads(path.read_text(encoding="utf-8"))
    fixed = ("side", "photons", "pack", "slices", "seed", "precision")
    if other := [key for key in fixed if earlier[key] != record[key]]:
        raise ValueError(f"{path} is of something else ({', '.join(other)}): leave --add out, or choose another folder")
    rows = [before | now for before, now in zip(earlier["runs"], record["runs"], strict=True)]
    return record | {"methods": list(dict.fromkeys([*earlier["methods"], *record["methods"]])), "runs": rows}


def solvers_of(networks: Networks, labels: Sequence[str]) -> dict[str, Reconstructor]:
    """The methods by their label."""
    return {label: build_method(networks, label) for label in labels}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every run and write the table."""
    parser = experiment_parser(__doc__)
    add_data_arguments(parser, every=1)
    add_network_arguments(parser, precision="bfloat16")
    parser.add_argument("--half", action="store_true", help="means of 2 x 2 pixels, and twice the photons")
    parser.add_argument("--most", type=int, default=8, help="slices of a run at most")
    parser.add_argument("--method", nargs="*", default=list(METHODS), help="methods")
    parser.add_argument("--add", action="store_true", help="keep the other methods of the table in --out")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    pack = CTPack(read_pack(arguments.data, 1).path, every=arguments.every)
    solvers = solvers_of(networks_from(arguments), arguments.method)
    chosen = runs(list(pack), most=arguments.most)
    record: Record = {
        "runs": [], "methods": list(solvers), "side": pack.image_shape[0] // (2 if arguments.half else 1),
        "photons": 1e5 if arguments.half else 5e4, "pack": f"{pack.path.parent.name}/{pack.path.name}",
        "slices": sum(len(run) for run in chosen), "seed": arguments.seed, "precision": arguments.precision,
        "processor": processor_name(),
    }  # fmt: skip
    for run in chosen:
        record["runs"].append(measured(run, solvers, half=arguments.half, seed=arguments.seed))
        print(markdown(record), flush=True)
    if arguments.add:
        record = with_stored(record, arguments.out / "flicker.json")
    write_result(arguments.out, "flicker", record, markdown(record))


if __name__ == "__main__":
    main()
