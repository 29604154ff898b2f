"""Does DEFT say when an image, or its data, are unlike those of validation? Limits, and what they find.

The limits are quantiles over validation slices and scans (``deft_ct.methods.deft.familiarity``): the fit of the prior
to the reconstruction, on both sides, and the part of the data that neither image nor noise explains. They are tried on
test slices, where a warning is a false alarm, and on what should be told: phantoms, a head of plastic (an original
series, ``dicom_cases/gantry_tilt``), a shifted detector and wrong angles. Finished slices are kept in ``--work``.

Run: python benchmarks/experiments/familiarity.py --limits LIMITS.json --out benchmarks/results

Copy the limits as ``familiarity.json`` into the folder of the h-transform.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.ellipsoids import EllipsoidPhantom
from deft_ct.datasets.packs import data_root, read_pack
from deft_ct.evaluation.store import Record, cached_json, content_name, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.io import read_series
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft.familiarity import MISFIT, UNFAMILIAR, Familiarity
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.reconstruction import Request
from deft_ct.workflows.experiments.arguments import (
    add_network_arguments,
    build_method,
    experiment_parser,
    networks_from,
)

FITTED = ("parallel60_1e5", "parallel20_1e5", "parallel120_1e5", "fan60_1e5")
TRIED = "parallel60_1e5"
QUANTILE = 0.995
AIR_HU = -1000.0
SIDE = 256


@dataclass(frozen=True)
class Trial:
    """A slice and how it is scanned.

    Attributes:
        group: what it is a case of.
        name: of the slice.
        hu: ``(1, 1, H, W)``.
        pixel_mm: its pixels.
        scan: how it is scanned.
        shift: elements by which the detector is said to be off, and is not.
        turned: factor of the angles that the method is told.
    """

    group: str
    name: str
    hu: Tensor
    pixel_mm: float
    scan: str = TRIED
    shift: float = 0.0
    turned: float = 1.0


def slices_of(pack: str, every: int, group: str, scan: str = TRIED) -> Iterator[Trial]:
    """Slices of a pack."""
    for item in read_pack(pack, every):
        yield Trial(group, f"{item.group}/{item.index}", item.hu[None], item.pixel_mm, scan)


def phantoms() -> Iterator[Trial]:
    """Discs of water with nothing, rods or bars in them, and slices of a head of ellipsoids."""
    line = torch.arange(float(SIDE)) - (SIDE - 1) / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    water = torch.where(x**2 + y**2 < 100**2, 0.0, AIR_HU)
    rods = water.clone()
    for k, value in enumerate((-1000.0, -500.0, -100.0, 50.0, 100.0, 300.0, 600.0, 1000.0)):
        angle = k * math.pi / 4
        rods[(x - 60 * math.cos(angle)) ** 2 + (y - 60 * math.sin(angle)) ** 2 < 100] = value
    bars = torch.where((x // 8 % 2 == 0) & (x**2 + y**2 < 100**2), 200.0, water)
    for name, hu in (("water", water), ("rods in water", rods), ("bars in water", bars)):
        yield Trial(f"phantom: {name}", name, hu[None, None], 1.5)
    volume = EllipsoidPhantom.head(220.0).volume((3, SIDE, SIDE), (20.0, 1.0, 1.0)).float()
    for k, attenuation in enumerate(volume):
        hu = HounsfieldScale().to_hu(attenuation)
        yield Trial("phantom: head of ellipsoids", f"slice {k}", hu[None, None], 1.0)


def cases(every: int) -> Iterator[Trial]:
    """What should be told."""
    yield from phantoms()
    head = read_series(data_root() / "dicom_cases" / "gantry_tilt").resampled(2)
    for k in range(len(head)):
        hu = torch.from_numpy(head.hu[k : k + 1])[None].float()
        yield Trial("a head of plastic", f"slice {k}", hu, head.pixel_mm)
    for one in slices_of("test_volumes", every, "test"):
        yield replace(one, group="detector off by one element", shift=1.0)
        yield replace(one, group="170 degrees for 180", turned=170 / 180)


def measured(trial: Trial, solver: DEFT, seed: int) -> Record:
    """Fit of the prior and unexplained residual of one slice, and the names of the other warnings."""
    shape = (trial.hu.shape[-2], trial.hu.shape[-1])
    scan = Scan.from_name(trial.scan).measurement(shape, trial.pixel_mm)
    hu = trial.hu.clamp_min(AIR_HU)
    y = scan.simulate(HounsfieldScale().to_attenuation(hu), seed=seed, image_ids=[trial.name], refine=2)
    if trial.shift or trial.turned != 1:
        assert isinstance(scan.operator, RayTransform) and isinstance(scan.operator.geometry, ParallelGeometry)
        true = scan.operator.geometry
        told = true.replace(
            angles=true.angle_array * trial.turned,
            detector_offset_mm=true.detector_offset_mm + trial.shift * true.detector_mm,
        )
        scan = Measurement(RayTransform(told), scan.noise, units=scan.units)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = solver.reconstruct(y, scan, seed=seed, image_ids=[trial.name])
    others = [one["name"] for one in result.provenance["warnings"] if one["name"] not in (UNFAMILIAR, MISFIT)]
    repaired = scan.diagnose(y).repaired  # as the methods see them
    request = Request(
        y=y if repaired is None else repaired, measurement=scan, num_samples=1, seed=seed, image_ids=(trial.name,),
        progress=False,
    )  # fmt: skip
    # Any limits do: both numbers are recorded whatever they are.
    numbers = Familiarity(fit=(0.0, 1.0), residual=1.0).judged(solver.prior, request, result.mean)[0]["familiarity"]
    (fit,), (residual,) = numbers["fits"], numbers["unexplained_residuals"]
    return {"fit": fit, "residual": residual, "others": others}


def limits_of(rows: Sequence[Record], solver: DEFT, provenance: Record) -> Familiarity:
    """Quantiles over the rows of validation slices."""
    return Familiarity.of(
        [row["fit"] for row in rows], [row["residual"] for row in rows], QUANTILE, provenance=provenance,
        prior_sha256=solver.prior.content_hash(), htransform_sha256=solver.htransform.content_hash(),
    )  # fmt: skip


def markdown(record: Record) -> str:
    """What is said of every group."""
    limits = Familiarity.from_dict(record["limits"])
    table = []
    for group, rows in record["groups"].items():
        told = [{one.name for one in limits.findings([row["fit"]], [row["residual"]])} for row in rows]
        fits = [row["fit"] for row in rows if row["fit"] is not None]
        others = sorted({name for row in rows for name in row["others"]})
        counts = [str(sum(name in one for one in told)) for name in (UNFAMILIAR, MISFIT)]
        table.append([
            group, str(len(rows)), *counts, str(sum(bool(one) for one in told)),
            f"{min(fits):.4f} to {max(fits):.4f}", f"{max(row['residual'] for row in rows):.4f}", ", ".join(others),
        ])  # fmt: skip
    headings = ["slices", "n", UNFAMILIAR, MISFIT, "either", "fit", "largest residual", "other warnings"]
    return "\n\n".join([
        "# What is unlike validation",
        markdown_table(headings, table, align="lrrrrlrl"),
        f"Limits: fit {limits.fit[0]:.4f} to {limits.fit[1]:.4f} of the prior's range, residual {limits.residual:.4f}. "
        f"They are quantiles {1 - QUANTILE:.3f} and {QUANTILE} of {record['fitted']} slices and scans of val (every "
        f"{record['every']}; {', '.join(FITTED)}). Tried on {TRIED}, seed {record['seed']}, networks in "
        f"{record['precision']}, slice by slice. Made by `benchmarks/experiments/familiarity.py`.",
    ]) + "\n"  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Fit the limits, try them, and write both."""
    parser = experiment_parser(__doc__)
    add_network_arguments(parser, precision="bfloat16")
    parser.add_argument("--every", type=int, default=8, help="take every k-th validation slice")
    parser.add_argument("--test-every", type=int, default=10, help="take every k-th slice of test_volumes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/familiarity"), help="folder of finished slices")
    parser.add_argument("--limits", type=Path, required=True, help="file for the limits")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    networks = networks_from(arguments)
    solver = build_method(networks, "deft")
    assert isinstance(solver, DEFT)
    described = {**solver.describe(), "config": asdict(solver.config), "seed": arguments.seed}

    def row(trial: Trial) -> Record:
        identity = [trial.hu, trial.pixel_mm, trial.shift, trial.turned, described]
        path = arguments.work / f"{content_name(f'{trial.group} {trial.name} {trial.scan}', *identity)}.json"
        return cached_json(path, lambda: measured(trial, solver, arguments.seed))

    fitted = [row(trial) for scan in FITTED for trial in slices_of("val", arguments.every, "val", scan)]
    provenance = {
        "data": "val",
        "every": arguments.every,
        "scans": list(FITTED),
        "slices": len(fitted),
        "quantile": QUANTILE,
    }
    limits = limits_of(fitted, solver, provenance)
    limits.write(arguments.limits)
    groups: dict[str, list[Record]] = {"val, all scans": fitted}
    tried = (
        *slices_of("test_volumes", arguments.test_every, "test_volumes"),
        *slices_of("test_singles", 2, "test_singles"),
        *cases(5 * arguments.test_every),
    )
    for trial in tried:
        groups.setdefault(trial.group, []).append(row(trial))
    record = {
        "limits": asdict(limits), "groups": groups, "fitted": len(fitted), "every": arguments.every,
        "seed": arguments.seed, "precision": arguments.precision,
    }  # fmt: skip
    print(markdown(record), flush=True)
    write_result(arguments.out, "familiarity", record, markdown(record))


if __name__ == "__main__":
    main()
