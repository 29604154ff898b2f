"""Time the ray transform and other libraries in one process: ms per slice, forward and adjoint.

A cell is an image size, a number of views and a batch size. Rounds interleave the candidates, so that slow phases of
the machine affect all of them. Every candidate is called once before the timing (compilation, plans, matrices). The
tables show medians. Results are written after each cell; the same command resumes and skips finished cells. Peers that
are not installed, or fail, are left out with the reason. A peer that treats slices one by one gets fewer slices than
the batch holds (`ONE_BY_ONE`), because its time per slice does not depend on the batch. On a quiet machine:

    python -W ignore benchmarks/speed/ray_transform.py --views 60 200 --out OUT/main
    python -W ignore benchmarks/speed/ray_transform.py --views 1000 --minutes 7 --out OUT/main   # repeat until done

On a machine that others use, `--threads 1 --processor-time` counts the time that the process itself computes.

Peers: `pip install astra-toolbox odl finufft diffct mbirjax deepinv`. scikit-image comes with deft-ct. deepinv needs a
torchvision of the same build as torch (CPU or CUDA). Use a separate environment with versions that fit:

    pip install torch==2.14.1 torchvision==0.29.1 deepinv==0.5.0 mbirjax==0.7.3 diffct==2.5.0 finufft==2.5.1 \
        astra-toolbox==2.5.0 odl==1.0.0 numba==0.68.1
    pip install -e .
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.ct.backends.choice import matrix_bytes
from deft_ct.operators.ct.backends.matrix import STORED_BYTES
from deft_ct.operators.linear import LinearOperator
from deft_ct.report.projector_timings import timings_markdown
from deft_ct.runtime.atomic import write_text

PACKAGES = (
    "torch", "numpy", "numba", "astra-toolbox", "odl", "scikit-image", "mbirjax", "jax", "diffct", "deepinv", "finufft",
)  # fmt: skip


Pair = tuple[Callable[[], object], Callable[[], object]]
Maker = Callable[[ParallelGeometry, Tensor, Tensor, int], Pair]


@dataclass(frozen=True)
class Candidate:
    """Two calls to time.

    Attributes:
        name: row of the table.
        key: what the command line calls it.
        pair: forward and adjoint, each a call without arguments.
        slices: slices that a call handles.
        threads: threads that it is given; 0 where the library decides.
        backend: the backend of ours that does the work.
    """

    name: str
    key: str
    pair: Pair
    slices: int
    threads: int
    backend: str | None = None


def without_graph(
    forward: Callable[[Tensor], object], x: Tensor, adjoint: Callable[[Tensor], object], y: Tensor
) -> Pair:
    """Two calls on fixed arguments, without an autograd graph."""

    def fixed(apply: Callable[[Tensor], object], argument: Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return apply(argument)

        return run

    return fixed(forward, x), fixed(adjoint, y)


def of_operator(op: LinearOperator, x: Tensor, y: Tensor) -> Pair:
    """Forward and adjoint of one of our operators."""
    return without_graph(op, x, op.adjoint, y)


def of_astra(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """ASTRA's `linear` CPU projector by direct calls on torch's memory, slices over a pool of torch's threads."""
    return of_operator(RayTransform(geometry, "astra"), x, y)


def of_odl(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """ODL's RayTransform with ASTRA's CPU projector, one slice at a time."""
    from deft_ct.operators.interop import FromODL, import_odl

    odl = import_odl()
    from odl.applications import tomo

    (height, width), (dy, dx) = geometry.image_shape, geometry.pixel_rc
    corner = [height * dy / 2, width * dx / 2]
    space = odl.uniform_discr([-c for c in corner], corner, geometry.image_shape, dtype="float32")
    scan = tomo.parallel_beam_geometry(space, geometry.sinogram_shape[0], geometry.detectors)
    return of_operator(FromODL(tomo.RayTransform(space, scan, impl="astra_cpu")), x, y)


def of_skimage(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """scikit-image's radon, and iradon without a filter."""
    from skimage.transform import iradon, radon

    theta = np.degrees(geometry.angle_array)
    image = x[0].numpy()
    sinogram = radon(image, theta, circle=False)
    size = geometry.image_shape[0]
    return (
        lambda: radon(image, theta, circle=False),
        lambda: iradon(sinogram, theta, filter_name=None, circle=False, output_size=size),
    )


def of_mbirjax(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """mbirjax, the batch as the slices of one volume; JAX compiles at the first call, which is not timed."""
    import mbirjax  # isort: skip  # before JAX, which it tells to use every core

    import jax

    views, detectors = geometry.sinogram_shape
    model = mbirjax.ParallelBeamModel((views, len(x), detectors), geometry.angle_array)
    model.set_params(recon_shape=(*geometry.image_shape, len(x)), verbose=0, no_warning=True)
    volume = jax.device_put(np.ascontiguousarray(x.permute(1, 2, 0).numpy()))
    data = jax.device_put(np.ascontiguousarray(y.permute(1, 0, 2).numpy()))
    return (
        lambda: jax.block_until_ready(model.forward_project(volume)),
        lambda: jax.block_until_ready(model.back_project(data)),
    )


def of_diffct(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """diffct's Siddon projector in pixel units, by its torch backend (its other one needs CUDA)."""
    import diffct

    scan = diffct.circular_trajectory_2d_parallel(geometry.sinogram_shape[0], device="cpu")
    op = diffct.Projector(scan, geometry.image_shape, (geometry.detectors,), beam="parallel", backend="torch")
    return without_graph(op.project, x, op.backproject, y)


def of_deepinv(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """deepinv's Tomography with its defaults."""
    from deepinv.physics import Tomography

    # Measured: 1.6 GB for a slice of 512 x 512 pixels and 200 views.
    needed = 32 * x[0].numel() * geometry.sinogram_shape[0] * len(x)
    if needed > 0.7 * psutil.virtual_memory().available:
        raise MemoryError(f"it would take about {needed / 1e9:.0f} GB")
    physics = Tomography(angles=geometry.sinogram_shape[0], img_width=geometry.image_shape[0], circle=False)
    image = x[:, None]
    with torch.no_grad():
        data = physics.A(image)
    return without_graph(physics.A, image, physics.A_adjoint, data)


def of_finufft(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """Non-uniform FFTs of types 2 and 1 at 1e-4: another, band-limited model; the FFT along the detector left out."""
    import finufft

    angles, (height, width) = geometry.angle_array, geometry.image_shape
    radius = 2 * np.pi * np.fft.fftfreq(geometry.detectors)
    u = (-np.sin(angles)[:, None] * radius).ravel().astype(np.float32)
    v = (np.cos(angles)[:, None] * radius).ravel().astype(np.float32)
    plans = [
        finufft.Plan(kind, (height, width), n_trans=len(x), eps=1e-4, dtype="complex64", nthreads=threads)
        for kind in (2, 1)
    ]
    for plan in plans:
        plan.setpts(u, v)
    image = x.numpy().astype(np.complex64).reshape(len(x), height, width)
    data = y.numpy().astype(np.complex64).reshape(len(y), -1)
    image, data = (image[0], data[0]) if len(x) == 1 else (image, data)
    return lambda: plans[0].execute(image), lambda: plans[1].execute(data)


PEERS: dict[str, tuple[str, Maker]] = {
    "astra": ("ASTRA", of_astra),
    "odl": ("ODL (astra_cpu)", of_odl),
    "skimage": ("scikit-image", of_skimage),
    "mbirjax": ("mbirjax", of_mbirjax),
    "diffct": ("diffct (torch)", of_diffct),
    "deepinv": ("deepinv", of_deepinv),
    "finufft": ("finufft, 1e-4", of_finufft),
}
"""Key -> (name, maker)."""

ONE_BY_ONE = {"astra": 4, "odl": 2, "skimage": 1, "diffct": 1, "deepinv": 1}
"""Most slices to hand to peers that treat them one by one (ASTRA: at least two for each thread of its pool)."""

THREADS = {"odl": 1, "skimage": 1, "mbirjax": 0}
"""Peers whose number of threads is not ours to choose; 0: all cores that the process may use."""


def candidates(
    geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int, keys: list[str], left_out: dict[str, str]
) -> list[Candidate]:
    """Prepare what is to be timed; each has been called once.

    Args:
        geometry: the scan.
        x: (N, H, W) images.
        y: (N, views, detectors) sinograms.
        threads: for those that run in parallel.
        keys: keys of `PEERS`, and names of our backends.
        left_out: filled with the reason for each one that does not run.
    """
    found: list[Candidate] = []

    def add(name: str, key: str, make: Callable[[], Pair], slices: int, used: int, backend: str | None = None) -> None:
        torch.set_num_threads(used or threads)
        try:
            pair = make()
            for call in pair:
                call()
        except Exception as error:  # noqa: BLE001  (one broken peer must not end the run)
            left_out[key] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            return
        found.append(Candidate(name, key, pair, slices, used, backend))

    for key in keys:
        if key in PEERS:
            name, maker = PEERS[key]
            most = ONE_BY_ONE.get(key, len(x))
            count = min(len(x), max(most, 2 * threads) if key == "astra" else most)
            for used in dict.fromkeys((1, threads) if key == "astra" else (THREADS.get(key, threads),)):
                label = f"{name}, {used or 'all'} thread{'s' * (used != 1)}"
                add(label, key, lambda m=maker, n=count, t=used: m(geometry, x[:n], y[:n], t or threads), count, used)  # type: ignore[misc]
            continue
        if key == "matrix" and matrix_bytes(geometry) > STORED_BYTES:
            left_out[key] = f"its {matrix_bytes(geometry) / 1e9:.1f} GB would be rebuilt for every call"
            continue
        try:
            op = RayTransform(geometry, key)
        except (ValueError, ImportError) as error:
            left_out[key] = str(error)
            continue
        shown = f"auto: {op.backend}" if key == "auto" else key
        for used in dict.fromkeys((1, threads) if key == "auto" else (threads,)):
            label = f"{shown}, {used} thread{'s' * (used != 1)}"
            add(label, key, lambda o=op: of_operator(o, x, y), len(x), used, op.backend)  # type: ignore[misc]
    return found


def roofline() -> dict[str, float]:
    """Speed of the machine: float32 matrix product (GFLOP/s) and memory read (GB/s), best of five."""
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


def measure(
    found: list[Candidate], rounds: int, seconds: float, threads: int, clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """Medians and best times of each candidate in ms per slice; slow ones stop after ``seconds``."""
    samples: list[tuple[list[float], list[float]]] = [([], []) for _ in found]
    for _ in range(rounds):
        for candidate, taken in zip(found, samples, strict=True):
            if sum(map(sum, taken)) * candidate.slices > 1e3 * seconds:
                continue
            torch.set_num_threads(candidate.threads or threads)
            for call, times in zip(candidate.pair, taken, strict=True):
                start = clock()
                call()
                times.append(1e3 * (clock() - start) / candidate.slices)
    return [
        {
            "name": c.name, "key": c.key, "threads": c.threads, "backend": c.backend, "slices": c.slices,
            "forward": statistics.median(f), "adjoint": statistics.median(a), "best_forward": min(f),
            "best_adjoint": min(a), "samples": len(f),
        }
        for c, (f, a) in zip(found, samples, strict=True)
    ]  # fmt: skip


def memory_mb(backend: str | None, geometry: ParallelGeometry) -> float | None:
    """Memory that one of our backends keeps for a geometry."""
    if backend == "matrix":
        return matrix_bytes(geometry) / 1e6
    if backend == "symmetric":
        return matrix_bytes(geometry) / 8e6
    rays = geometry.sinogram_shape[0] * geometry.sinogram_shape[1]
    return 36 * rays / 1e6 if backend == "joseph" else None


def cell(pixels: int, views: int, batch: int, keys: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Time one cell."""
    geometry = ParallelGeometry.for_image((pixels, pixels), 384 / pixels, views)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, pixels, pixels, generator=generator)
    y = torch.rand(batch, *geometry.sinogram_shape, generator=generator)
    torch.set_num_threads(arguments.threads)
    machine = roofline()
    left_out: dict[str, str] = {}
    found = candidates(geometry, x, y, arguments.threads, keys, left_out)
    busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    times = measure(found, arguments.rounds, arguments.seconds, arguments.threads, clock)
    took = time.perf_counter() - start
    others = (_busy_seconds() - busy - (time.process_time() - own)) / took
    for record in times:
        record["memory_mb"] = memory_mb(record["backend"], geometry)
    return {
        "pixels": pixels, "views": views, "batch": batch, "asked": keys, "times": times, "left_out": left_out,
        # 1.8 products for each pixel and view (Joseph), at the speed of a matrix product.
        "floor_ms": 1e3 * 2 * 1.8 * pixels**2 * views / (machine["sgemm_gflops"] * 1e9),
        "other_load_cores": max(0.0, others),
    } | machine  # fmt: skip


def _busy_seconds() -> float:
    now = psutil.cpu_times()
    return float(now.user + now.system + getattr(now, "nice", 0.0))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _load(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    if not path.exists():
        return {"unit": "ms per slice"} | settings | {"cells": []}
    content: dict[str, Any] = json.loads(path.read_text())
    content.setdefault("clock", "wall")  # results from before there was a choice
    differing = [key for key, value in settings.items() if content.get(key) != value]
    if differing:
        raise SystemExit(f"{path} was made with other {', '.join(differing)}: choose another --out")
    return content


def main(argv: Sequence[str] | None = None) -> None:
    """Measure cell by cell; write JSON and Markdown after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", nargs="+", type=int, default=[256, 362, 512])
    parser.add_argument("--views", nargs="+", type=int, default=[60, 200, 1000])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--backends", nargs="*", default=["auto", "matrix", "symmetric", "joseph"], help="ours")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each candidate, after its first call")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after this time")
    parser.add_argument("--processor-time", action="store_true", help="count the time that this process computes")
    parser.add_argument("--out", type=Path, required=True, help="path without suffix")
    arguments = parser.parse_args(argv)
    if arguments.processor_time and arguments.threads != 1:
        parser.error("--processor-time adds up the time of all threads: it needs --threads 1")
    settings = {
        "threads": arguments.threads,
        "clock": "processor" if arguments.processor_time else "wall",
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "machine": platform.processor() or platform.machine(),
        "packages": {name: _version(name) for name in PACKAGES},
    }
    target = arguments.out.with_suffix(".json")
    content = _load(target, settings)
    keys = [*arguments.peers, *arguments.backends]
    start = time.monotonic()
    grid = [(p, v, b) for v in arguments.views for p in arguments.pixels for b in arguments.batches]
    for pixels, views, batch in grid:
        same = [c for c in content["cells"] if (c["pixels"], c["views"], c["batch"]) == (pixels, views, batch)]
        if any(set(keys) <= set(c["asked"]) for c in same):
            continue
        if time.monotonic() - start > 60 * arguments.minutes:
            sys.stderr.write("time is up: run the same command again to resume\n")
            break
        began = time.monotonic()
        content["cells"] = [c for c in content["cells"] if c not in same]
        content["cells"].append(cell(pixels, views, batch, keys, arguments))
        content["cells"].sort(key=lambda c: (c["views"], c["pixels"], c["batch"]))
        write_text(target, json.dumps(content, indent=1) + "\n")
        write_text(arguments.out.with_suffix(".md"), timings_markdown(content))
        sys.stderr.write(f"{pixels} px, {views} views, batch {batch}: {time.monotonic() - began:.0f} s\n")
    sys.stdout.write(timings_markdown(content))


if __name__ == "__main__":
    main()
