"""Time of each part of DEFT, of a reconstructed slice and of a training step, and the kernels with the largest shares.

Run on a CPU, then on a GPU:

    python benchmarks/speed/profile_deft.py --device cpu --precision bfloat16 --threads 1 --out benchmarks/results
    python benchmarks/speed/profile_deft.py --device cuda --precision bfloat16 --batch-size 16 --out benchmarks/results

The data are simulated: 60 parallel views of the first val slices. Writes profile_DEVICE.json and profile_DEVICE.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.diffusion import load_prior
from deft_ct.evaluation.store import write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.deft import condition_for, load_htransform
from deft_ct.methods.deft.conditioning import Start
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.train import denoising_loss
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.problems.ct import CTProblem
from deft_ct.report import FOOTER
from deft_ct.runtime.machine import processor_name
from deft_ct.training.muon import Muon
from deft_ct.training.pairs import Pairs

KERNELS = 6
WARM = 2


def milliseconds(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median time of a call in ms, after two calls that are not counted."""
    times = []
    for _ in range(WARM + repeats):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times[WARM:]))


def kernels(work: Callable[[], Any], device: torch.device) -> list[tuple[str, float]]:
    """Names and shares of the kernels that take the most time in a call."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as recorded:
        work()

    def own(event: Any) -> float:
        return float(event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total)

    events = sorted(recorded.key_averages(), key=own, reverse=True)
    total = sum(own(event) for event in events) or 1.0
    return [(event.key, own(event) / total) for event in events[:KERNELS]]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Times and kernels for one batch of slices, with what they depend on."""
    device, count = torch.device(options.device), options.batch_size
    prior, head = load_prior(None), load_htransform(None)
    prior.precision = head.precision = options.precision
    prior, head = prior.to(device), head.to(device)
    problem = CTProblem(read_pack(options.data, every=options.every), Scan.from_name(options.scan), seed=0)
    y, measurement, _ = problem.batches[0]
    copies = -(-count // len(y))
    y, measurement = y.repeat(copies, 1, 1, 1)[:count].to(device), measurement.to(device)
    likelihood = measurement.likelihood(y, prior.value_range)
    keys = [str(n) for n in range(count)]

    reference = reference_reconstruction(likelihood, head.config.reference, iterations=head.config.tv_iterations)
    condition = condition_for(likelihood, head)
    x_t, t = torch.randn_like(reference), torch.full((count,), 500.0, device=device)
    x0, eps = prior.predict(x_t, 500.0)
    residual = head.guidance_at(likelihood, x0, t)
    own = head.refinement
    start = Start(reference, residual, own and own.second_image(likelihood, head.precision))
    mean, samples = (DEFT(prior, head, DEFTConfig(batch_size=count, estimate=kind)) for kind in ("mean", "samples"))
    trained = load_htransform(None).to(device).requires_grad_(True)
    if trained.refinement is not None:
        trained.refinement.requires_grad_(False)
    trained.precision = options.precision
    optimizer = Muon(trained.parameters(), 1e-6)
    lower = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(options.precision)

    def train() -> None:
        pairs = Pairs(x0=reference, likelihood=likelihood)
        with torch.autocast(device.type, dtype=lower, enabled=lower is not None):
            loss = denoising_loss(trained, trained, prior, pairs, t, x_t, tabulated=start)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    frozen = torch.no_grad()
    parts: dict[str, Callable[[], Any]] = {
        "TV reference": lambda: reference_reconstruction(
            likelihood, head.config.reference, iterations=head.config.tv_iterations
        ),
        "second reconstruction": lambda: own and own.second_image(likelihood, head.precision),
        "refinement": lambda: frozen(head.refine)(reference, residual, condition.features, None, start.second),
        "evaluation of the prior": lambda: prior.predict(x_t, 500.0),
        "guidance (FBP of the residual)": lambda: head.guidance_at(likelihood, x0, t),
        "evaluation of the h-transform": lambda: frozen(head)(x_t, t, x0, eps, residual, condition),
        "a reconstructed slice, direct mean": lambda: mean.reconstruct(y, measurement, num_samples=1, image_ids=keys),
        "a reconstructed slice, one sample": lambda: samples.reconstruct(y, measurement, num_samples=1, image_ids=keys),
        "training of the h-transform, a slice": train,
    }
    record: dict[str, Any] = {"milliseconds_per_slice": {}, "kernels": {}}
    for name, work in parts.items():
        record["milliseconds_per_slice"][name] = milliseconds(work, device, options.repeats) / count
    for name in ("a reconstructed slice, direct mean", "a reconstructed slice, one sample"):
        record["kernels"][name] = kernels(parts[name], device)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return record | {
        "device": machine, "threads": torch.get_num_threads(), "batch": count, "precision": options.precision,
        "scan": options.scan, "prior_sha256": prior.content_hash(), "htransform_sha256": head.content_hash(),
    }  # fmt: skip


def markdown(record: dict[str, Any]) -> str:
    """Two tables: parts, kernels."""
    parts = [[name, f"{value:.1f}"] for name, value in record["milliseconds_per_slice"].items()]
    shares = [[f"{work}: {name}", f"{100 * share:.0f}"] for work, found in record["kernels"].items()
              for name, share in found]  # fmt: skip
    return "\n\n".join([
        markdown_table(["part", "ms per slice"], parts), markdown_table(["kernel", "% of the time"], shares),
        f"{record['device']}, {record['threads']} thread(s), batch of {record['batch']}, networks in "
        f"{record['precision']}, {record['scan']}, 256 x 256. Medians.", f"{FOOTER}.",
    ]) + "\n"  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=0, help="0: the default of torch")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scan", default="parallel60_1e5")
    parser.add_argument("--data", default="val")
    parser.add_argument("--every", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    record = measure(options)
    text = markdown(record)
    write_result(options.out, f"profile_{torch.device(options.device).type}", record, text)
    print(text)


if __name__ == "__main__":
    main()
