"""What damaged data do to each method, and whether the user is told before the reconstruction.

Validation slices are scanned, the data of each slice are damaged in one way, and each method reconstructs them. The
table gives the RMSE in HU and the names of the warnings (in brackets where the data were repaired). With
``--false-alarms`` nothing is reconstructed: the diagnosis looks at clean data of every slice and scan, and each warning
is a false alarm.

Run: python benchmarks/experiments/data_faults.py --json benchmarks/results/data_faults.json
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.problem import Batch
from deft_ct.evaluation.score import score
from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.findings import DataWarning
from deft_ct.operators.noise import PoissonNoise
from deft_ct.problems.ct import CTProblem
from deft_ct.runtime.atomic import write_text
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    build_method,
    experiment_parser,
    networks_from,
)

METHODS = ("learned_primal_dual", "deft", "fbp_unet", "tv")
SCANS = (
    "parallel60_1e5",
    "parallel20_1e5",
    "parallel60_1e5_120deg",
    "fan60_1e5",
    "parallel60_1e4",
    "parallel60_noisefree",
)
GOLDEN = math.pi * (math.sqrt(5) - 1) / 2

Damage = Callable[[Batch], Batch]


def scanned(batch: Batch, geometry: ParallelGeometry, y: Tensor) -> Batch:
    """The batch with other data of another geometry."""
    return Batch(
        y, Measurement(RayTransform(geometry), batch.measurement.noise, units=batch.measurement.units), batch.image_ids
    )


def geometry_of(batch: Batch) -> ParallelGeometry:
    """The parallel geometry of a batch."""
    operator = batch.measurement.operator
    assert isinstance(operator, RayTransform) and isinstance(operator.geometry, ParallelGeometry)
    return operator.geometry


def shuffled(batch: Batch) -> Batch:
    """The views in a random order."""
    geometry = geometry_of(batch)
    order = np.random.default_rng(0).permutation(len(geometry.angle_array))
    return scanned(
        batch, geometry.replace(angles=geometry.angle_array[order]), batch.y[..., torch.from_numpy(order), :]
    )


def truncated(batch: Batch) -> Batch:
    """A fifth of the detector is missing on each side."""
    geometry = geometry_of(batch)
    cut = geometry.detectors // 5
    return scanned(batch, geometry.replace(detectors=geometry.detectors - 2 * cut), batch.y[..., cut:-cut])


def changed(change: Callable[[Tensor], Tensor]) -> Damage:
    """Other data of the same scan."""
    return lambda batch: Batch(change(batch.y), batch.measurement, batch.image_ids)


def one_element(reading: Callable[[Tensor], Tensor | float]) -> Damage:
    """The element at a third of the detector reads something else."""

    def change(y: Tensor) -> Tensor:
        y = y.clone()
        element = y.shape[-1] // 3
        y[..., element] = reading(y[..., element])
        return y

    return changed(change)


def noisy(column: Tensor) -> Tensor:
    """A reading with noise of standard deviation 1."""
    return column + torch.randn(column.shape, generator=torch.Generator().manual_seed(0))


def photons_of(batch: Batch) -> float:
    """Photons of the scan."""
    assert isinstance(batch.measurement.noise, PoissonNoise)
    return batch.measurement.noise.photons


def counts(batch: Batch) -> Batch:
    """Photons instead of line integrals."""
    return Batch(photons_of(batch) * (-batch.y).exp(), batch.measurement, batch.image_ids)


def with_metal(y: Tensor) -> Tensor:
    """A rod of metal at the middle: 6 elements read 8 more in all views."""
    y = y.clone()
    middle = y.shape[-1] // 2
    y[..., middle - 3 : middle + 3] += 8
    return y


def starved(y: Tensor) -> Tensor:
    """The thickest tenth of the rays reads the floor of one tenth of a count."""
    limit = torch.sort(y.flatten()).values[int(0.9 * y.numel())]
    return torch.where(y > limit, math.log(1e6), y)


FAULTS: dict[str, Damage] = {
    "nominal": lambda batch: batch,
    "views shuffled": shuffled,
    "one dead element (0)": one_element(lambda column: 0.0),
    "one noisy element": one_element(noisy),
    "truncated": truncated,
    "y = -y": changed(lambda y: -y),
    "transmittance": changed(lambda y: (-y).exp()),
    "counts": counts,
    "photon starvation": changed(starved),
    "metal": changed(with_metal),
}


def golden_angle(problem: CTProblem) -> CTProblem:
    """The slices of a problem, scanned anew at golden angles."""
    count = problem.scan.views
    angles = np.arange(count) * GOLDEN % math.pi
    made, done = [], 0
    for batch in problem.batches:
        geometry = geometry_of(batch).replace(angles=angles)
        measurement = Measurement(RayTransform(geometry), batch.measurement.noise, units=batch.measurement.units)
        assert measurement.units is not None
        hu = torch.from_numpy(problem.truth[done : done + len(batch.y)]).float()[:, None]
        done += len(hu)
        y = measurement.simulate(
            measurement.units.affine(hu), seed=problem.seed, image_ids=batch.image_ids, refine=problem.refine
        )
        made.append(Batch(y, measurement, batch.image_ids))
    return problem.with_batches(made)


def table(problem: CTProblem, networks: Any, methods: Sequence[str]) -> list[dict[str, Any]]:
    """RMSE and warnings of each method for each fault."""
    rows = []
    clean = list(problem.batches)
    cases = {name: problem.with_batches([damage(batch) for batch in clean]) for name, damage in FAULTS.items()}
    cases["golden angle"] = golden_angle(problem)
    for fault, case in cases.items():
        row: dict[str, Any] = {"fault": fault}
        for text in methods:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    values = score(text, build_method(networks, text), case).values["rmse"]
                    rmse = float(np.mean(values))
                except (ValueError, FloatingPointError) as error:
                    rmse = math.nan
                    row.setdefault("refused", {})[text] = str(error)
            told = {str(w.message).partition(":")[0] for w in caught if issubclass(w.category, DataWarning)}
            row[text] = {"rmse_hu": rmse, "warnings": sorted(told)}
            print(f"{fault}: {text} {rmse:.1f} HU {sorted(told)}", flush=True)
        rows.append(row)
    return rows


def false_alarms(data: str, every: int, seed: int) -> dict[str, Any]:
    """Warnings of the diagnosis on clean data."""
    counts, total, alarmed = Counter[str](), 0, 0
    for name in SCANS:
        for batch in CTProblem(read_pack(data, every), Scan.from_name(name), seed=seed, batch_size=1).batches:
            findings = batch.measurement.diagnose(batch.y).findings
            total += 1
            alarmed += bool(findings)
            counts.update(finding.name for finding in findings)
    return {"data": data, "every": every, "scans": list(SCANS), "slice_scans": total, "alarmed": alarmed, "by": counts}


def markdown(rows: Sequence[dict[str, Any]], methods: Sequence[str], n: int) -> str:
    """The table."""
    body = []
    for row in rows:
        told = sorted({name for text in methods for name in row[text]["warnings"]})
        cells = ["refused" if math.isnan(row[m]["rmse_hu"]) else f"{row[m]['rmse_hu']:.0f}" for m in methods]
        body.append([row["fault"], *cells, ", ".join(told)])
    heads = ["fault", *(f"{text} (HU)" for text in methods), "warnings"]
    return markdown_table(heads, body) + f"\n\nRMSE of the whole slice, mean of n = {n} slices of one scan.\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, or the false alarms, and write them."""
    parser = experiment_parser(__doc__)
    add_data_arguments(parser, every=64)
    parser.add_argument("--scan", default="parallel60_1e5")
    parser.add_argument("--method", action="append")
    parser.add_argument("--false-alarms", action="store_true", help="diagnose clean data of six scans instead")
    parser.add_argument("--json", type=Path)
    add_network_arguments(parser)
    arguments = parser.parse_args(argv)
    found: Any
    if arguments.false_alarms:
        found = false_alarms(arguments.data, arguments.every, arguments.seed)
        print(json.dumps(found))
    else:
        pack = read_pack(arguments.data, arguments.every)
        problem = CTProblem(pack, Scan.from_name(arguments.scan), seed=arguments.seed, batch_size=1)
        methods = arguments.method or METHODS
        rows = table(problem, networks_from(arguments), methods)
        found = {
            "data": arguments.data,
            "every": arguments.every,
            "slices": len(pack),
            "scan": arguments.scan,
            "rows": rows,
        }
        print(markdown(rows, methods, len(pack)))
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
