"""Time the ray transform side by side with other libraries in one process: ms per slice, forward and adjoint.

Rounds interleave the candidates, so that slow phases of the machine hit all of them; the table shows each one's best
round, and the ratio to ASTRA on one thread. Run on a quiet machine:

    python benchmarks/ray_transform.py --sizes 256x60 362x60 512x200 --batches 1 8 32 --out ray_transform.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.base import LinearOperator
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.ct.backends.choice import matrix_bytes

Pair = tuple[Callable[[], object], Callable[[], object]]


def of_operator(op: LinearOperator, x: Tensor, y: Tensor, threads: int) -> Pair:
    """Forward and adjoint calls of one of our operators on a number of threads."""

    def call(apply: Callable[[Tensor], Tensor], argument: Tensor) -> Callable[[], object]:
        def run() -> object:
            torch.set_num_threads(threads)
            with torch.no_grad():
                return apply(argument)

        return run

    return call(op, x), call(op.adjoint, y)


def of_odl(geometry: ParallelGeometry, x: Tensor, y: Tensor) -> Pair:
    """ODL's RayTransform with ASTRA's CPU projector, one slice at a time."""
    from deft_ct.operators.interop import FromODL, import_odl

    odl = import_odl()
    from odl.applications import tomo

    (height, width), (dy, dx) = geometry.image_shape, geometry.pixel_rc
    corner = [height * dy / 2, width * dx / 2]
    space = odl.uniform_discr([-c for c in corner], corner, geometry.image_shape, dtype="float32")
    scan = tomo.parallel_beam_geometry(space, geometry.sinogram_shape[0], geometry.detectors)
    op = FromODL(tomo.RayTransform(space, scan, impl="astra_cpu"))
    return of_operator(op, x, y, 1)


def of_skimage(geometry: ParallelGeometry, x: Tensor, y: Tensor) -> Pair:
    """scikit-image's radon, and iradon without a filter, for the first slice only."""
    from skimage.transform import iradon, radon

    theta = np.degrees(geometry.angle_array)
    image = x[0].numpy()
    sinogram = radon(image, theta, circle=False)
    size = geometry.image_shape[0]
    return (
        lambda: radon(image, theta, circle=False),
        lambda: iradon(sinogram, theta, filter_name=None, circle=False, output_size=size),
    )


def candidates(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> dict[str, tuple[Pair, int]]:
    """What can be timed here: name -> (calls, slices a call)."""
    slices = len(x)
    out: dict[str, tuple[Pair, int]] = {}

    def add(name: str, make: Callable[[], Pair], count: int = slices) -> None:
        try:
            out[name] = (make(), count)
        except ImportError as error:
            sys.stderr.write(f"left out {name}: {error}\n")

    add("ASTRA, 1 thread", lambda: of_operator(RayTransform(geometry, "astra"), x, y, 1))
    add(f"ASTRA, {threads} threads", lambda: of_operator(RayTransform(geometry, "astra"), x, y, threads))
    if matrix_bytes(geometry) < 2 * 10**9:
        add("matrix", lambda: of_operator(RayTransform(geometry, "matrix"), x, y, threads))
    add("joseph", lambda: of_operator(RayTransform(geometry, "joseph"), x, y, threads))
    add("ODL (astra_cpu)", lambda: of_odl(geometry, x, y))
    add("scikit-image", lambda: of_skimage(geometry, x, y), 1)
    return out


def measure(pairs: dict[str, tuple[Pair, int]], rounds: int) -> dict[str, tuple[float, float]]:
    """Best time of each candidate in ms per slice, after one call to warm up."""
    best = {name: [float("inf"), float("inf")] for name in pairs}
    for turn in range(rounds + 1):
        for name, (pair, slices) in pairs.items():
            for which, call in enumerate(pair):
                start = time.perf_counter()
                call()
                if turn:
                    best[name][which] = min(best[name][which], 1e3 * (time.perf_counter() - start) / slices)
    return {name: (f, a) for name, (f, a) in best.items()}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x60"], help="PIXELSxVIEWS")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    records: list[dict[str, object]] = []
    for size in arguments.sizes:
        pixels, views = (int(n) for n in size.split("x"))
        geometry = ParallelGeometry.for_image((pixels, pixels), 384 / pixels, views)
        for batch in arguments.batches:
            generator = torch.Generator().manual_seed(0)
            x = torch.rand(batch, pixels, pixels, generator=generator)
            y = torch.rand(batch, *geometry.sinogram_shape, generator=generator)
            times = measure(candidates(geometry, x, y, arguments.threads), arguments.rounds)
            base = times.get("ASTRA, 1 thread")
            sys.stdout.write(
                f"\n{pixels} px, {views} views, batch {batch}; matrices {matrix_bytes(geometry) / 1e6:.0f} MB\n"
            )
            sys.stdout.write(f"{'':18}{'forward':>10}{'adjoint':>10}  ratio to ASTRA, 1 thread\n")
            for name, (forward, adjoint) in times.items():
                ratio = f"{base[0] / forward:8.1f}x {base[1] / adjoint:6.1f}x" if base else ""
                sys.stdout.write(f"{name:18}{forward:10.2f}{adjoint:10.2f}  {ratio}\n")
                records.append(
                    {
                        "pixels": pixels,
                        "views": views,
                        "batch": batch,
                        "name": name,
                        "forward": forward,
                        "adjoint": adjoint,
                    }
                )
    if arguments.out:
        about = {"machine": platform.processor(), "torch": torch.__version__, "load": os.getloadavg()}
        arguments.out.write_text(json.dumps(about | {"unit": "ms per slice", "times": records}, indent=2))


if __name__ == "__main__":
    main()
