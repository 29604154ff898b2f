"""Slices at the resolution of the scanner, or at half of it: what the native route gains, and what it costs.

Three routes to an image of the same pixels, at equal photons per patient. DEFT and TV work on a detector whose elements
are as wide as the pixels of the slices. The half route has elements and pixels of twice the width, with twice the
photons each, as the networks were trained; DEFT's image is interpolated to the fine pixels (bicubic). All are judged
against the fine slices, patient by patient. Finished cells are kept, so that an interrupted run goes on.

Run: python benchmarks/experiments/native_resolution.py --data $DEFT_CT_DATA/ct512/test.h5 --out benchmarks/results
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack, read_pack
from deft_ct.datasets.slices import CTSlice
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.evaluation.store import Record, cached_json, content_name, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.registry import Networks
from deft_ct.problems.ct_metrics import evaluate
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.machine import processor_name
from deft_ct.runtime.memory import peak_memory
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    build_method,
    experiment_parser,
    hashes_of,
    networks_from,
)

NAME = "native_resolution"
ROUTES = ("TV, native", "DEFT, half", "DEFT, native")
PHOTONS = 5e4
"""Per element of the fine detector; 1e5 for an element of twice the width."""
AIR_HU = -1000.0


def halved(hu: Tensor) -> Tensor:
    """``(B, 1, H, W)`` as the means of 2 x 2 pixels."""
    return torch.nn.functional.avg_pool2d(hu, 2)


def doubled(hu: Tensor) -> Tensor:
    """``(B, 1, H, W)`` interpolated to twice the pixels: each centre lies where it was."""
    return torch.nn.functional.interpolate(hu, scale_factor=2, mode="bicubic", align_corners=False)


def reconstructed(
    solver: Reconstructor, hu: Tensor, scan: Scan, pixel_mm: float, names: Sequence[str], *, seed: int
) -> tuple[Tensor, Record]:
    """HU of simulated scans of slices ``(B, 1, H, W)``, with seconds a slice and memory of the method."""
    measurement = scan.measurement((hu.shape[-2], hu.shape[-1]), pixel_mm)
    y = measurement.simulate(HounsfieldScale().to_attenuation(hu), seed=seed, image_ids=names, refine=2)
    with peak_memory() as memory:
        began = time.perf_counter()
        result = solver.reconstruct(y, measurement, seed=seed, image_ids=names)
        seconds = time.perf_counter() - began
    return result.in_units.mean, {"seconds": seconds / len(hu), "mib": memory.total_mib}


@dataclass(frozen=True)
class Cells:
    """Finished cells on disk: one for each slice, number of views and route.

    Args:
        work: their folder.
        methods: configuration and networks of each route, which a cell depends on.
        seed: of noise and methods.
    """

    work: Path
    methods: dict[str, Record]
    seed: int

    def measured(self, items: Sequence[CTSlice], views: int, solvers: dict[str, Reconstructor]) -> list[Record]:
        """All routes on slices of one pixel size, which are reconstructed together. Cells that are there are read."""
        found: list[Record] = [{} for _ in items]
        for route, solver in solvers.items():
            paths = [self._path(item, views, route) for item in items]
            missing = [item for item, path in zip(items, paths, strict=True) if not path.exists()]
            results = cells_of(missing, views, solver, half=route.endswith("half"), seed=self.seed) if missing else []
            made = {item.index: result for item, result in zip(missing, results, strict=True)}
            for item, path, row in zip(items, paths, found, strict=True):
                row[route] = cached_json(path, functools.partial(made.__getitem__, item.index))
        return found

    def _path(self, item: CTSlice, views: int, route: str) -> Path:
        identity = [item.hu, item.pixel_mm, f"{item.group}/{item.index}", PHOTONS, self.seed, self.methods[route]]
        return self.work / f"{content_name(f'{item.group} {item.index} {views} {route}', *identity)}.json"


def cells_of(items: Sequence[CTSlice], views: int, solver: Reconstructor, *, half: bool, seed: int) -> list[Record]:
    """Quality and cost of one route on slices of one pixel size."""
    truth, factor = torch.stack([item.hu for item in items]).clamp_min(AIR_HU), 2 if half else 1
    names = [f"{item.group}/{item.index}" for item in items]
    scan = Scan(views=views, photons=PHOTONS * factor)
    hu = halved(truth) if half else truth
    images, cost = reconstructed(solver, hu, scan, items[0].pixel_mm * factor, names, seed=seed)
    metrics = evaluate((doubled(images) if half else images)[:, 0], truth[:, 0])
    return [{"psnr": float(metrics.psnr[k]), "ssim": float(metrics.ssim[k]), **cost} for k in range(len(items))]


def half_limits(slices: Iterable[CTSlice]) -> list[float]:
    """PSNR of each true slice at half of its resolution, interpolated: the half route without any other error."""
    limits = []
    for item in slices:
        truth = item.hu[None].clamp_min(AIR_HU)
        limits.append(float(evaluate(doubled(halved(truth))[:, 0], truth[:, 0]).psnr[0]))
    return limits


def detail_gains(rows: Sequence[Record], limits: Sequence[float]) -> list[float]:
    """Gain over the half route of an image that has all the detail this route cannot show, and its other errors.

    The lost detail and the other errors are taken to be uncorrelated, so that their squares add up.
    """
    shares = [10 ** ((row["DEFT, half"]["psnr"] - limit) / 10) for row, limit in zip(rows, limits, strict=True)]
    return [-10 * float(np.log10(1 - share)) for share in shares]


def together(slices: Iterable[CTSlice], most: int) -> list[list[CTSlice]]:
    """Neighbouring slices of one series and pixel size, at most so many of them."""
    groups: list[list[CTSlice]] = []
    for item in slices:
        last = groups[-1] if groups else []
        if last and len(last) < most and (last[0].group, last[0].pixel_mm) == (item.group, item.pixel_mm):
            last.append(item)
        else:
            groups.append([item])
    return groups


def stored_views(out: Path, record: Record) -> Record:
    """Rows of an earlier table of the same slices and settings.

    Raises:
        ValueError: there is none, or it is of something else.
    """
    path = out / f"{NAME}.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))
    fixed = ("side", "pack", "slices", "patients", "seed", "precision")
    if other := [key for key in fixed if earlier[key] != record[key]]:
        raise ValueError(f"{path} is of something else ({', '.join(other)}): leave --add out, or choose another folder")
    views: Record = earlier["views"]
    return {"views": views, "at_once": earlier.get("at_once", dict.fromkeys(views, 1))}


def gains(rows: Sequence[Record], route: str) -> list[float]:
    """PSNR of the native DEFT minus that of a route, slice by slice."""
    return [row[ROUTES[-1]]["psnr"] - row[route]["psnr"] for row in rows]


def markdown(record: Record) -> str:
    """Quality and cost of the routes, and the gain of the native one with its interval."""
    table = []
    for views, rows in record["views"].items():
        for route in ROUTES:
            psnr, ssim, seconds, mib = (
                float(np.mean([row[route][key] for row in rows])) for key in ("psnr", "ssim", "seconds", "mib")
            )
            gain = mean_interval(gains(rows, route), method="t") if route != ROUTES[-1] and len(rows) > 1 else None
            more = "" if gain is None else f"{gain.mean:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})"
            table.append([views, route, f"{psnr:.2f}", f"{ssim:.4f}", more, f"{seconds:.1f}", f"{mib / 1024:.2f}"])
    headings = ["views", "route", "PSNR (dB)", "SSIM", "gain of DEFT, native (dB)", "s per slice", "process (GiB)"]
    return "\n\n".join([
        "# Native resolution",
        markdown_table(headings, table, align="llrrrrr"),
        f"{record['pack']}, slices of {record['side']} x {record['side']} pixels, n = {record['slices']} of "
        f"{record['patients']} patients, spread over them, seed {record['seed']}. Parallel beams, {PHOTONS:g} photons "
        f"for each element of a pixel's width, {2 * PHOTONS:g} for those of the half route: equal photons per patient. "
        f"Networks in {record['precision']}. Gain: mean and 95 % interval over slices (t). One thread of "
        f"{record['processor']}, beside other work; slices that were reconstructed together: "
        f"{', '.join(f'{count} with {views} views' for views, count in record['at_once'].items())}. "
        "Made by `benchmarks/experiments/native_resolution.py`.",
        f"The true slices at half of their resolution, interpolated, have {np.mean(record['half_limits']):.2f} dB. An "
        "image with all of this lost detail, and otherwise the errors of the half route, gains "
        f"{' and '.join(_detail_gain(record, views) for views in record['views'])}.",
    ]) + "\n"  # fmt: skip


def _detail_gain(record: Record, views: str) -> str:
    return f"{np.mean(detail_gains(record['views'][views], record['half_limits'])):.2f} dB with {views} views"


def solvers_of(networks: Networks) -> dict[str, Reconstructor]:
    """The methods of the routes."""
    return {route: build_method(networks, "tv" if route.startswith("TV") else "deft") for route in ROUTES}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the routes and write the table."""
    parser = experiment_parser(__doc__)
    add_data_arguments(parser, every=1)
    add_network_arguments(parser, precision="bfloat16")
    parser.add_argument("--limit", type=int, help="at most so many slices, spread over the patients")
    parser.add_argument("--views", type=int, nargs="*", default=[60, 120])
    parser.add_argument("--at-once", type=int, default=1, help="slices of a patient that are reconstructed together")
    parser.add_argument("--add", action="store_true", help="keep the rows of other views of the table in --out")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    parser.add_argument("--work", type=Path, default=Path("runs/native_resolution"), help="folder of finished cells")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    pack = CTPack(read_pack(arguments.data, 1).path, every=arguments.every, limit=arguments.limit)
    networks = networks_from(arguments)
    solvers = solvers_of(networks)
    described = {
        route: hashes_of(solver, networks) | {"method": solver.name, "config": asdict(solver.config)}
        for route, solver in solvers.items()
    }
    cells = Cells(arguments.work, described, arguments.seed)
    record: Record = {
        "views": {}, "at_once": {}, "side": pack.image_shape[0], "pack": f"{pack.path.parent.name}/{pack.path.name}",
        "slices": len(pack), "patients": len(set(pack.patients)), "seed": arguments.seed,
        "precision": arguments.precision,
        "processor": processor_name(), "half_limits": half_limits(pack),
    }  # fmt: skip
    if arguments.add:
        record |= stored_views(arguments.out, record)
    for views in arguments.views:
        rows: list[Record] = []
        for group in together(pack, arguments.at_once):
            rows += cells.measured(group, views, solvers)
            print(f"{views} views: {len(rows)} of {len(pack)} slices", flush=True)
        record["views"][str(views)], record["at_once"][str(views)] = rows, arguments.at_once
        print(markdown(record), flush=True)
    write_result(arguments.out, NAME, record, markdown(record))


if __name__ == "__main__":
    main()
