"""Time the ray transform side by side with other libraries in one process: ms per slice, forward and adjoint.

Rounds interleave the candidates, so that slow phases of the machine hit all of them; the table shows each one's best
round, and the ratio to ASTRA on one thread. Peers that are not installed, or fail, are left out with the reason. Run
on a quiet machine (writes NAME.json and NAME.md):

    python benchmarks/ray_transform.py --sizes 256x60 362x60 512x200 --batches 1 8 32 --out runs/ray_transform
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


def of_finufft(geometry: ParallelGeometry, x: Tensor, y: Tensor) -> Pair:
    """Non-uniform FFTs of types 2 and 1 at 1e-4: another, band-limited model; the FFT along the detector left out."""
    import finufft

    angles, (height, width) = geometry.angle_array, geometry.image_shape
    radius = 2 * np.pi * np.fft.fftfreq(geometry.detectors)
    u = (-np.sin(angles)[:, None] * radius).ravel().astype(np.float32)
    v = (np.cos(angles)[:, None] * radius).ravel().astype(np.float32)
    plans = [finufft.Plan(kind, (height, width), n_trans=len(x), eps=1e-4, dtype="complex64") for kind in (2, 1)]
    for plan in plans:
        plan.setpts(u, v)
    image = x.numpy().astype(np.complex64).reshape(len(x), height, width)
    data = y.numpy().astype(np.complex64).reshape(len(y), -1)
    image, data = (image[0], data[0]) if len(x) == 1 else (image, data)
    return lambda: plans[0].execute(image), lambda: plans[1].execute(data)


def of_deepinv(geometry: ParallelGeometry, x: Tensor, y: Tensor) -> Pair:
    """deepinv's Tomography with its defaults."""
    from deepinv.physics import Tomography

    physics = Tomography(angles=geometry.sinogram_shape[0], img_width=geometry.image_shape[0], circle=False)
    image = x[:, None]
    data = physics.A(image)
    return of_callables(physics.A, image, physics.A_adjoint, data)


def of_diffct(geometry: ParallelGeometry, x: Tensor, y: Tensor) -> Pair:
    """diffct's Siddon projector in pixel units, one slice."""
    import diffct

    views, detectors = geometry.sinogram_shape
    scan = diffct.circular_trajectory_2d_parallel(views, device="cpu")
    height, width = geometry.image_shape
    return of_callables(
        lambda image: diffct.ParallelProjectorFunction.apply(image, *scan, detectors, 1.0),
        x[0],
        lambda data: diffct.ParallelBackprojectorFunction.apply(data, *scan, 1.0, height, width),
        y[0],
    )


def of_mbirjax(geometry: ParallelGeometry, x: Tensor, y: Tensor) -> Pair:
    """mbirjax, the batch as the slices of one volume."""
    import jax
    import mbirjax

    views, detectors = geometry.sinogram_shape
    model = mbirjax.ParallelBeamModel((views, len(x), detectors), geometry.angle_array)
    model.set_params(recon_shape=(*geometry.image_shape, len(x)), verbose=0)
    volume, data = x.permute(1, 2, 0).numpy(), y.permute(1, 0, 2).numpy()
    return (
        lambda: jax.block_until_ready(model.forward_project(volume)),
        lambda: jax.block_until_ready(model.back_project(data)),
    )


def of_callables(
    forward: Callable[[Tensor], object], x: Tensor, adjoint: Callable[[Tensor], object], y: Tensor
) -> Pair:
    """Two calls without a graph."""

    def without_graph(apply: Callable[[Tensor], object], argument: Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return apply(argument)

        return run

    return without_graph(forward, x), without_graph(adjoint, y)


def roofline() -> dict[str, float]:
    """What the machine gives: float32 matrix product (GFLOP/s) and memory read (GB/s), best of five."""
    a = torch.rand(1024, 1024)
    stream = torch.rand(64 * 2**20)
    times: dict[str, list[float]] = {"sgemm": [], "read": []}
    for _ in range(5):
        for name, call in (("sgemm", lambda: a @ a), ("read", stream.sum)):
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {
        "sgemm_gflops": 2 * 1024**3 / min(times["sgemm"]) / 1e9,
        "read_gb_per_s": stream.numel() * 4 / min(times["read"]) / 1e9,
    }


def candidates(
    geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int, left_out: dict[str, str]
) -> dict[str, tuple[Pair, int]]:
    """What can be timed here: name -> (calls, slices a call)."""
    slices = len(x)
    out: dict[str, tuple[Pair, int]] = {}

    def add(name: str, make: Callable[[], Pair], count: int = slices) -> None:
        if name in left_out:
            return
        try:
            pair = make()
            for call in pair:  # a peer may fail only when it is called
                call()
            out[name] = (pair, count)
        except Exception as error:  # noqa: BLE001  (one broken peer must not end the run)
            left_out[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            sys.stderr.write(f"left out {name}: {left_out[name]}\n")

    add("ASTRA, 1 thread", lambda: of_operator(RayTransform(geometry, "astra"), x, y, 1))
    add(f"ASTRA, {threads} threads", lambda: of_operator(RayTransform(geometry, "astra"), x, y, threads))
    if matrix_bytes(geometry) < 2 * 10**9:
        add("matrix", lambda: of_operator(RayTransform(geometry, "matrix"), x, y, threads))
    add("symmetric", lambda: of_operator(RayTransform(geometry, "symmetric"), x, y, threads))
    add("joseph", lambda: of_operator(RayTransform(geometry, "joseph"), x, y, threads))
    add("ODL (astra_cpu)", lambda: of_odl(geometry, x, y))
    add("scikit-image", lambda: of_skimage(geometry, x, y), 1)
    add("mbirjax", lambda: of_mbirjax(geometry, x, y))
    add("finufft, 1e-4", lambda: of_finufft(geometry, x, y))
    # One slice each: they loop over the batch, and are slow.
    add("diffct (torch)", lambda: of_diffct(geometry, x[:1], y[:1]), 1)
    add("deepinv", lambda: of_deepinv(geometry, x[:1], y[:1]), 1)
    return out


def measure(pairs: dict[str, tuple[Pair, int]], rounds: int, seconds: float) -> dict[str, tuple[float, float, int]]:
    """Best times of each candidate in ms per slice and the number of rounds; slow ones stop after ``seconds``."""
    best = {name: [float("inf"), float("inf")] for name in pairs}
    spent, turns = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0)
    for _ in range(rounds):
        for name, (pair, slices) in pairs.items():
            if turns[name] and spent[name] > seconds:
                continue
            for which, call in enumerate(pair):
                start = time.perf_counter()
                call()
                took = time.perf_counter() - start
                spent[name] += took
                best[name][which] = min(best[name][which], 1e3 * took / slices)
            turns[name] += 1
    return {name: (f, a, turns[name]) for name, (f, a) in best.items()}


def memory_mb(name: str, geometry: ParallelGeometry) -> float | None:
    """Memory that one of our choices keeps for a geometry."""
    if name == "matrix":
        return matrix_bytes(geometry) / 1e6
    if name == "symmetric":
        return matrix_bytes(geometry) / 8e6
    return 36 * float(np.prod(geometry.sinogram_shape)) / 1e6 if name == "joseph" else None


def main() -> None:
    """Measure, print a table, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x60"], help="PIXELSxVIEWS")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each candidate in each cell")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="path without suffix")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = roofline()
    records: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    lines = [
        f"{arguments.threads} threads; sgemm {machine['sgemm_gflops']:.0f} GFLOP/s, memory "
        f"{machine['read_gb_per_s']:.0f} GB/s. Best of the rounds, ms per slice; ratios to ASTRA on one thread."
    ]
    for size in arguments.sizes:
        pixels, views = (int(n) for n in size.split("x"))
        geometry = ParallelGeometry.for_image((pixels, pixels), 384 / pixels, views)
        # 1.8 products for each pixel and view (Joseph), at the speed of a matrix product.
        floor = 1e3 * 2 * 1.8 * pixels**2 * views / (machine["sgemm_gflops"] * 1e9)
        for batch in arguments.batches:
            generator = torch.Generator().manual_seed(0)
            x = torch.rand(batch, pixels, pixels, generator=generator)
            y = torch.rand(batch, *geometry.sinogram_shape, generator=generator)
            found = candidates(geometry, x, y, arguments.threads, left_out)
            times = measure(found, arguments.rounds, arguments.seconds)
            base = times.get("ASTRA, 1 thread")
            lines += [
                f"\n### {pixels} px, {views} views, batch {batch} (arithmetic floor {floor:.2f} ms)\n",
                "| | forward | adjoint | ratios | memory, MB | rounds |",
                "|---|---|---|---|---|---|",
            ]
            for name, (forward, adjoint, turns) in times.items():
                ratio = f"{base[0] / forward:.1f}x / {base[1] / adjoint:.1f}x" if base else ""
                memory = memory_mb(name, geometry)
                kept = "" if memory is None else f"{memory:.0f}"
                lines.append(f"| {name} | {forward:.2f} | {adjoint:.2f} | {ratio} | {kept} | {turns} |")
                records.append(
                    {
                        "pixels": pixels, "views": views, "batch": batch, "name": name, "forward": forward,
                        "adjoint": adjoint, "rounds": turns, "memory_mb": memory,
                    }
                )  # fmt: skip
            sys.stderr.write(f"{size}, batch {batch}: done\n")
            del found
    lines += ["", *(f"Left out: {name} ({reason})." for name, reason in left_out.items())]
    sys.stdout.write("\n".join(lines) + "\n")
    if arguments.out:
        about = {"machine": platform.processor(), "torch": torch.__version__, "load": os.getloadavg()} | machine
        content = about | {"unit": "ms per slice", "times": records, "left_out": left_out}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
        arguments.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
