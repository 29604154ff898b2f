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
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from deft_ct.operators.ct import ParallelGeometry
from deft_ct.operators.ct.backends.matrix import matrix_pair
from deft_ct.report.projector_timings import timings_markdown
from deft_ct.runtime.atomic import write_text
from deft_ct.workflows.experiments.projector_peers import PEERS, Candidate, candidates

PACKAGES = (
    "torch", "numpy", "numba", "astra-toolbox", "odl", "scikit-image", "mbirjax", "jax", "diffct", "deepinv", "finufft",
)  # fmt: skip


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
    """Memory that one of our backends keeps for a geometry; `symmetric` stores about an eighth of the matrices."""
    if backend in ("matrix", "symmetric"):
        pair = matrix_pair(geometry)
        for transpose in (False, True):
            pair.get(torch.float32, torch.device("cpu"), transpose=transpose)  # kept since the timing
        return pair.stored_bytes(torch.device("cpu")) / (1e6 if backend == "matrix" else 8e6)
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
