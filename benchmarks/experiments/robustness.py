"""What DEFT, TV and FBP lose when the scan is not what they are told: noise level, angles, detector, start of the arc.

Data of validation slices are simulated with the true scan (on a grid twice as fine, as everywhere) and reconstructed as
if they were of the nominal one. Noise and errors of the set-up come from the seed; a set-up has one error for all
slices, as a scanner has. Changes are paired, slice by slice, with the case in which everything is as told. Run:

    python benchmarks/experiments/robustness.py --every 16

Every finished cell (case and method) is kept in WORK, and the same command goes on from there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from halved_heads import cached, difference, interval_text, slug, table, write

from deft_ct.cli import options as opt
from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.evaluation.problem import Problem, prepare, score, score_json
from deft_ct.evaluation.statistics import Interval, mean_interval
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import Networks
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise

DATA_RANGE_HU = 2000.0
FAULTY = 4
"""Detector elements with a gain error."""
TV = "TV"
METHODS = {"DEFT, direct mean": "deft", "DEFT, one sample": "deft:estimate=samples", TV: "tv", "FBP": "fbp"}
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """How the true scan differs from the nominal one.

    Args:
        name: in the table.
        photons: true photons over nominal ones.
        angle_degrees: standard deviation of an independent error of every view angle.
        offset_elements: shift of the detector, in detector elements.
        gain: relative error of the gain of :data:`FAULTY` elements, half of them up and half down, that the flat field
            does not know of.
        start_steps: angle of the first view, in steps between views.
        told: whether the methods know the photons and the geometry of the true scan.
    """

    name: str
    photons: float = 1.0
    angle_degrees: float = 0.0
    offset_elements: float = 0.0
    gain: float = 0.0
    start_steps: float = 0.0
    told: bool = False


EXACT = "as told"
# A constant error of the angles is left out: it turns the image and changes nothing else.
CASES = (
    Case(name=EXACT),
    Case(name="1/3 of the photons", photons=1 / 3),
    Case(name="1/3 of the photons, told", photons=1 / 3, told=True),
    Case(name="1/10 of the photons", photons=0.1),
    Case(name="1/10 of the photons, told", photons=0.1, told=True),
    Case(name="10 times the photons", photons=10.0),
    Case(name="10 times the photons, told", photons=10.0, told=True),
    Case(name="angles off by 0.25 degrees", angle_degrees=0.25),
    Case(name="angles off by 0.5 degrees", angle_degrees=0.5),
    Case(name="detector off by 0.5 elements", offset_elements=0.5),
    Case(name="detector off by 1 element", offset_elements=1.0),
    Case(name=f"gain of {FAULTY} elements off by 5 %", gain=0.05),
    # The networks have seen arcs from angle 0 only. They are told the angles, but the features do not hold the start.
    Case(name="first view after half a step, told", start_steps=0.5, told=True),
    Case(name="first view after 15 steps, told", start_steps=15.0, told=True),
)


def true_measurement(nominal: Measurement, case: Case, seed: int) -> Measurement:
    """The scan that takes place, gain errors aside.

    Args:
        nominal: a parallel or fan-beam scan of equally spaced views.
        case: what is wrong with it.
        seed: of the errors of the angles.

    Raises:
        ValueError: other photons are asked of a scan without photon noise.
    """
    assert isinstance(nominal.operator, RayTransform)
    geometry, noise = nominal.operator.geometry, nominal.noise
    assert isinstance(geometry, ParallelGeometry | FanGeometry)
    angles = geometry.angle_array
    errors = np.random.default_rng(seed).standard_normal(len(angles))
    step = angles[1] - angles[0] if len(angles) > 1 else 0.0
    changed = geometry.replace(
        angles=angles + case.start_steps * step + math.radians(case.angle_degrees) * errors,
        detector_offset_mm=geometry.detector_offset_mm + case.offset_elements * geometry.detector_mm,
    )
    if case.photons != 1:
        if not isinstance(noise, PoissonNoise):
            raise ValueError(f"{case.name!r} needs a scan with photon noise, got {type(noise).__name__}")
        noise = dataclasses.replace(noise, photons=case.photons * noise.photons)
    # The operator of the nominal scan is kept where it is right: its matrix need not be built twice.
    operator = nominal.operator
    if changed != geometry:
        operator = RayTransform(changed, nominal.operator.backend, kernel=nominal.operator.kernel)
    return Measurement(operator, noise, units=nominal.units)


def gain_error(detectors: int, case: Case, seed: int) -> torch.Tensor:
    """What the faulty elements add to line integrals, ``(detectors,)``; they lie in the middle half of the detector."""
    added = torch.zeros(detectors)
    chosen = np.random.default_rng(seed).choice(np.arange(detectors // 4, detectors - detectors // 4), FAULTY, False)
    signs = torch.tensor([1.0, -1.0]).repeat(FAULTY // 2)
    added[torch.from_numpy(chosen)] = -(1 + case.gain * signs).log()
    return added


def perturbed(problem: Problem, case: Case) -> Problem:
    """The slices of a nominal problem with data of the true scan, and with the measurement that methods are told."""
    scans: dict[Any, Measurement] = {}
    batches, first = [], 0
    for y, nominal, names in problem.batches:
        assert isinstance(nominal.operator, RayTransform)
        key = nominal.operator.geometry
        if key not in scans:
            scans[key] = true_measurement(nominal, case, problem.seed)
        true = scans[key]
        hu = torch.from_numpy(problem.truth[first : first + len(names), None]).to(y)
        first += len(names)
        data = true.simulate(
            HounsfieldScale().to_attenuation(hu), seed=problem.seed, image_ids=names, refine=problem.refine
        )
        data = data + gain_error(data.shape[-1], case, problem.seed).to(data)
        batches.append((data, true if case.told else nominal, names))
    return dataclasses.replace(problem, batches=batches)


def change(cells: Mapping[tuple[str, str], Record], case: str, method: str, against: str, key: str) -> list[float]:
    """Change of a figure of every slice from the case ``against``, without the slices that have none (no body)."""
    pairs = zip(cells[case, method][key], cells[against, method][key], strict=True)
    return [a - b for a, b in pairs if a is not None and b is not None]


def verdict(beyond: Interval) -> str:
    """Whether a method loses more than TV, from its change of PSNR minus TV's."""
    if beyond.high < 0:
        return "more"
    return "less" if beyond.low > 0 else "no clear difference"


def rows_against(
    cells: Mapping[tuple[str, str], Record], pairs: Sequence[tuple[str, str]], methods: Sequence[str]
) -> list[Record]:
    """Means and paired changes of every method, in every pair of a case and the one that it is compared with."""
    rows = []
    for case, against in pairs:
        for method in methods:
            cell = cells[case, method]
            gained = change(cells, case, method, against, "psnr_db")
            row: Record = {"case": case, "against": against, "method": method}
            row["psnr_db"] = float(np.mean(cell["psnr_db"]))
            row["rmse_body_hu"] = float(np.nanmean(np.array(cell["rmse_body_hu"], float)))
            if case != against:
                errors = change(cells, case, method, against, "rmse_body_hu")
                row["psnr_change_db"] = asdict(mean_interval(gained, method="t"))
                row["rmse_change_hu"] = asdict(mean_interval(errors, method="t"))
                if method != TV and (case, TV) in cells:
                    beyond = difference(gained, change(cells, case, TV, against, "psnr_db"))
                    row |= {"psnr_change_beyond_tv_db": asdict(beyond), "loses": verdict(beyond)}
            rows.append(row)
    return rows


def lines_of(rows: Sequence[Record]) -> list[str]:
    """Markdown lines of a table."""

    def text(row: Record, key: str) -> str:
        return interval_text(Interval(**row[key])) if key in row else "-"

    return table(
        [
            "case", "method", "PSNR (dB)", "RMSE in body (HU)", "change of PSNR (dB)", "change of RMSE (HU)",
            "change of PSNR beyond TV's (dB)", "loses, compared with TV",
        ],
        [
            [
                row["case"], row["method"], f"{row['psnr_db']:.2f}", f"{row['rmse_body_hu']:.1f}",
                text(row, "psnr_change_db"), text(row, "rmse_change_hu"), text(row, "psnr_change_beyond_tv_db"),
                row.get("loses", "-"),
            ]
            for row in rows
        ],
    )  # fmt: skip


def found_shifts(values: Sequence[float | None]) -> tuple[str, str]:
    """Range of the shifts that were found, and of how many slices."""
    found = [value for value in values if value is not None]
    return f"{min(found):+.2f} to {max(found):+.2f}" if found else "-", f"{len(found)} of {len(values)}"


def markdown(record: Record) -> str:
    """Both tables, and what the numbers are about."""
    settings = record["settings"]
    return "\n".join([
        "# The scan is not what the methods are told", "",
        f"Changes from the case {EXACT!r}, mean (95 % interval of the paired differences).", "",
        *lines_of(record["against_exact"]), "",
        "## Being told a wrong noise level, the data being the same", "",
        "Changes from the case in which the methods know the photons of the data.", "",
        *lines_of(record["against_told"]), "",
        "## What `operators.ct.detector_shift` finds in the data of single slices", "",
        *table(
            ["case", "elements, smallest to largest", "slices that tell"],
            [[case, *found_shifts(values)] for case, values in record["detector_shift_elements"].items()],
        ), "",
        f"Pack {settings['pack']}, every {settings['every']}: n = {settings['slices']} slices, {settings['scan']}, "
        f"seed {settings['seed']}, networks in {settings['precision']}; whole slices, range {DATA_RANGE_HU:g} HU. "
        "Angles: an independent Gaussian error of every view, the same for all slices; detector and gain: one shift "
        "and one set of elements. Intervals are over slices: those of a patient resemble each other, and one draw of "
        "errors was tried. \"Loses\": by the interval beside it. Not for clinical use.", "",
    ])  # fmt: skip


def main(
    data: opt.Data = "val",
    every: opt.Every = 16,
    scan: Annotated[str, typer.Option(help="Name of the nominal scan.")] = "parallel60_1e5",
    seed: opt.Seed = 0,
    precision: opt.PrecisionName = "bfloat16",
    batch_size: opt.BatchSize = 4,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Of the names in the table; all by default. Repeat.")
    ] = None,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.", min=1)] = 1,
    work: Annotated[Path, typer.Option(help="Folder of finished cells.")] = Path("runs/robustness"),
    out: Annotated[Path, typer.Option(help="Folder of robustness.json and .md.")] = Path("benchmarks/results"),
) -> None:
    """Measure what is missing, and write the tables."""
    torch.set_num_threads(threads)
    pack, nominal = opt.read_pack(data, every), Scan.from_name(scan)
    if len(pack) < 2:
        raise typer.BadParameter(f"an interval needs at least two slices, every {every} of {data} leaves {len(pack)}")
    builder = Networks(prior=prior, htransform=htransform, models={}, precision=opt.parse_precision(precision))
    names = methods or list(METHODS)
    solvers = {name: builder.build(*opt.parse_method(METHODS[name])) for name in names}

    @cache
    def exact() -> Problem:
        return prepare(pack, nominal, seed=seed, batch_size=batch_size)

    cells: dict[tuple[str, str], Record] = {}
    shifts: dict[str, list[float | None]] = {}
    for case in CASES:
        problem = cache(lambda case=case: perturbed(exact(), case))

        def shifts_of(problem: Any = problem) -> Record:
            batches = problem().batches
            found = [measurement.diagnose(y).record for data, measurement, _ in batches for y in data]
            return {"elements": [record.get("detector_shift_elements") for record in found]}

        data_identity = [str(pack.path), every, nominal.name, seed, asdict(case), batch_size]
        found = cached(work / f"{slug(f'{case.name} shift', data_identity)}.json", shifts_of)
        shifts[case.name] = found["elements"]
        for name, solver in solvers.items():

            def compute(name: str = name, solver: Any = solver, problem: Any = problem) -> Record:
                return score_json(score(name, solver, problem(), samples=1, data_range_hu=DATA_RANGE_HU))

            identity = [
                str(pack.path), every, nominal.name, seed, asdict(case), precision, batch_size,
                asdict(solver.config), solver.describe(),
            ]  # fmt: skip
            cells[case.name, name] = cached(work / f"{slug(f'{case.name} {name}', identity)}.json", compute)
            typer.echo(f"{case.name}, {name}: {np.mean(cells[case.name, name]['psnr_db']):.2f} dB")
    mistold = [(case.name, f"{case.name}, told") for case in CASES if case.photons != 1 and not case.told]
    record = {
        "settings": {
            "pack": pack.path.name, "every": every, "slices": len(pack), "scan": nominal.name, "seed": seed,
            "precision": precision, "batch_size": batch_size, "simulation_refinement": 2,
            "data_range_hu": DATA_RANGE_HU, "faulty_elements": FAULTY, "cases": [asdict(case) for case in CASES],
            "methods": {name: solver.describe() | {"config": asdict(solvers[name].config)}
                        for name, solver in solvers.items()},
        },
        "against_exact": rows_against(cells, [(case.name, EXACT) for case in CASES], names),
        "against_told": rows_against(cells, mistold, names),
        "detector_shift_elements": shifts,
        "slices": [{"case": case, "method": method, "values": cell} for (case, method), cell in cells.items()],
    }  # fmt: skip
    write(out, "robustness", record, markdown(record))


if __name__ == "__main__":
    typer.run(main)
