"""Cone-beam volumes from few noisy views: FDK, CGLS, total variation in three dimensions, DDS with a prior of slices.

Two kinds of volumes. The phantom is a head of ellipsoids whose data are line integrals in closed form. The real ones
are cylinders cut from the series of a slice dataset at their own resolution, with air around them. Their data are
simulated on a grid twice as fine. CGLS stops after the number of iterations, and TV has the strength, that is best for
the volume by the truth, so both are compared at their best. Both at their defaults are rows of their own.

Run: python benchmarks/experiments/volumes.py --size 48 --slices 16 --json benchmarks/results/volumes.json
"""

from __future__ import annotations

import itertools
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.ellipsoids import EllipsoidPhantom
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import ConeGeometry, RayTransform
from deft_ct.operators.findings import DataWarning
from deft_ct.operators.noise import PoissonNoise
from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.seeds import generator_for
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    build_method,
    experiment_parser,
    networks_from,
)

CLASSICAL = {
    "FDK": ("fbp",),
    "CGLS, best iterations": tuple(f"cgls:iterations={k}" for k in (3, 4, 6, 8, 10, 14)),
    "CGLS, default": ("cgls",),
    "TV, best strength": tuple(f"tv:strength={s},iterations=60,tolerance=0" for s in (125, 250, 500, 1000)),
    "TV, default strength": ("tv:iterations=60,tolerance=0",),
}
DDS = {
    "DDS, slices alone": ("dds:steps=20,start=0.1,coupling=0",),
    "DDS, coupled along z": ("dds:steps=20,start=0.1",),
}
HU_OF_AIR = -1000.0


class Case(NamedTuple):
    """A volume with its data.

    Attributes:
        name: of the volume.
        truth: ``(1, 1, Z, H, W)``, 1/mm.
        y: ``(1, 1, views, rows, columns)``.
        measurement: how the data came about.
    """

    name: str
    truth: Tensor
    y: Tensor
    measurement: Measurement


def scan(shape: tuple[int, int, int], voxel: tuple[float, float, float], views: int, photons: float) -> Measurement:
    """A full turn at the distances of a clinical scanner."""
    geometry = ConeGeometry.for_image(shape, voxel, views)
    return Measurement(RayTransform(geometry), PoissonNoise(photons=photons), units=HounsfieldScale())


def phantom(size: int, views: int, photons: float, seed: int) -> Case:
    """A head of ellipsoids in a cube of 1.5 mm voxels."""
    measurement = scan((size, size, size), (1.5, 1.5, 1.5), views, photons)
    geometry = measurement.operator.geometry
    head = EllipsoidPhantom.head(0.9 * 1.5 * size)
    truth = head.volume(geometry.image_shape, geometry.voxel_zyx).float()[None, None]
    clean = head.line_integrals(geometry.rays()).float()[None, None]
    y = measurement.noise.sample(clean, [generator_for(seed, "noise", "phantom")])
    return Case("phantom", truth, y, measurement)


def cuts(data: str, shape: tuple[int, int, int], views: int, photons: float, seed: int) -> Iterator[Case]:
    """Two cylinders from every series with enough slices of at most 5 mm."""
    pack = read_pack(data)
    first = 0
    for group in pack.groups:
        slices = pack.array()[first : first + group.slices].astype(np.float32)
        first += group.slices
        thickness = spacing_mm(pack, first - group.slices)
        if group.slices < 2 * shape[0] or thickness > 5:
            continue
        for part, place in (("lower", 0.3), ("upper", 0.7)):
            low = int(place * group.slices) - shape[0] // 2
            name = f"{group.name}, {part}"
            measurement = scan(shape, (thickness, group.pixel_mm, group.pixel_mm), views, photons)
            hu = torch.from_numpy(cylinder(slices[low : low + shape[0]], shape[1:]))
            truth = measurement.units.affine(hu.clamp_min(HU_OF_AIR))[None, None]
            yield Case(name, truth, measurement.simulate(truth, seed=seed, image_ids=[name], refine=2), measurement)


def spacing_mm(pack: Any, first: int) -> float:
    """Distance of the slices of a series that begins at this position."""
    return abs(float(pack[first + 1].z_mm) - float(pack[first].z_mm))


def cylinder(slices: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The middle of slices in HU, with air outside the inscribed circle."""
    height, width = slices.shape[1:]
    top, left = (height - shape[0]) // 2, (width - shape[1]) // 2
    cut = slices[:, top : top + shape[0], left : left + shape[1]].copy()
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in shape)
    cut[:, np.hypot(rows[:, None], columns) > 0.47 * min(shape)] = HU_OF_AIR
    return cut


def measured(case: Case, variants: Sequence[str], networks: Any, seed: int) -> dict[str, Any]:
    """The best of some variants of a method: RMSE in HU, its options and seconds."""
    best: dict[str, Any] = {"rmse_hu": math.inf}
    for text in variants:
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            image = build_method(networks, text).reconstruct(case.y, case.measurement, seed=seed).mean
        seconds = time.perf_counter() - began
        hu = case.measurement.units.affine.inverse(image) - case.measurement.units.affine.inverse(case.truth)
        rmse = float(hu.square().mean().sqrt())
        if rmse < best["rmse_hu"]:
            best = {"rmse_hu": rmse, "options": text, "seconds": seconds}
    return best


def markdown(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """RMSE of each method on each volume, and relative to CGLS."""
    names = [row["volume"] for row in rows]
    methods = list(rows[0]["methods"])
    body = []
    for method in methods:
        cells = [method]
        for row in rows:
            found = row["methods"].get(method)
            reference = row["methods"]["CGLS, best iterations"]["rmse_hu"]
            cells.append("" if found is None else f"{found['rmse_hu']:.1f} ({found['rmse_hu'] / reference:.2f})")
        body.append(cells)
    return (
        markdown_table(["method", *names], body, align="l" + "r" * len(names))
        + f"\n\nRMSE in HU over the whole volume, and relative to CGLS. n = {len(rows)} volumes, {settings['views']} "
        f"cone-beam views, {settings['photons']:g} photons, seed {settings['seed']}. Real volumes of "
        f"{settings['data']}: {settings['slices']} slices of {settings['size']} x {settings['size']}.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write the values of every volume."""
    parser = experiment_parser(__doc__)
    add_data_arguments(parser, data="test_volumes")
    parser.add_argument(
        "--size", type=int, default=64, help="rows and columns; the phantom has as many slices, at most 64"
    )
    parser.add_argument("--slices", type=int, default=24, help="slices of the real volumes")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--photons", type=float, default=5e3)
    parser.add_argument("--limit", type=int, default=None, help="at most so many real volumes; all if left out")
    parser.add_argument("--no-networks", action="store_true", help="leave out DDS")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--json", type=Path, help="file for the values of every volume")
    add_network_arguments(parser)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    networks, seed = networks_from(arguments), arguments.seed
    shape = (arguments.slices, arguments.size, arguments.size)
    real = cuts(arguments.data, shape, arguments.views, arguments.photons, seed)
    rows = []
    for case in (
        phantom(min(arguments.size, 64), arguments.views, arguments.photons, seed),
        *itertools.islice(real, arguments.limit),
    ):
        methods = CLASSICAL if arguments.no_networks else {**CLASSICAL, **DDS}
        found = {}
        for name, variants in methods.items():
            found[name] = measured(case, variants, networks, seed)
            print(f"{case.name}: {name} {found[name]['rmse_hu']:.1f} HU ({found[name]['options']})", flush=True)
        rows.append({"volume": case.name, "methods": found})
    settings = {
        "data": arguments.data, "size": arguments.size, "slices": arguments.slices, "views": arguments.views,
        "photons": arguments.photons, "seed": seed, "refinement_of_real_data": 2,
    }  # fmt: skip
    print(markdown(rows, settings))
    if arguments.json is not None:
        text = json.dumps({"settings": settings, "rows": rows}, indent=1, allow_nan=False)
        write_text(arguments.json, text + "\n")


if __name__ == "__main__":
    main()
