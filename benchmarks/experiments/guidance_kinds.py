"""Kinds of guidance of the shipped form of the h-transform (TV reference), on real CT at 128 x 128.

A head for each kind, trained at equal cost on the same slices, noise and order, and measured on the same data. Before
that, what the guidance alone is worth: the error of the prior's estimate with the best multiple of the guidance added.

Run: python benchmarks/experiments/halved.py --out runs/halved, then
     python benchmarks/experiments/guidance_kinds.py --work runs/halved --out benchmarks/results    (run again to go on)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from halved import halved_scan
from halved_heads import (
    Record,
    Workshop,
    add_options,
    difference,
    footer,
    interval_text,
    table,
    values,
    write,
)
from torch import Tensor

from deft_ct.ct.scan import Scan
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import HTransform
from deft_ct.runtime.seeds import generator_for, normal_like

KINDS = ("fbp", "adjoint", "cg", "split")
BASE = "fbp"
TIMES = (60, 300, 700)
SPAN = PriorRange()
ESTIMATES = {"direct_mean": "direct mean", "single": "one sample", "mean": "mean of samples"}


def run(options: argparse.Namespace) -> Record:
    """Train what is missing and measure every kind."""
    shop = Workshop(options, samples=options.samples)
    scan = halved_scan(options.scan)
    rows: Record = {}
    heads = {kind: shop.one_scan_head(scan, kind) for kind in options.kinds}
    for kind, head in heads.items():
        rows[kind] = {"seconds": head.card["seconds"], "sha256": head.content_hash(), "config": head.config.to_dict()}
        rows[kind] |= {
            "direct": shop.measured(head, scan, estimate="mean", draws=2),
            "sampled": shop.measured(head, scan, estimate="samples", steps=20),
        }
        print(f"{kind}: direct mean {rows[kind]['direct']['direct_mean']['psnr_db']['mean']:.2f} dB", flush=True)
    reference = shop.reference(scan)
    return {
        "protocol": shop.protocol(),
        "scan": scan.name,
        "rows": rows,
        "reference": reference,
        "worth_hu": worth(shop, heads, scan),
    }


@torch.no_grad()
def worth(shop: Workshop, heads: dict[str, HTransform], scan: Scan) -> Record:
    """RMS error (HU) of ``x0h``, and of ``x0h`` with the best multiple of each guidance, at some times."""
    problem, prior = shop.problem(scan), shop.prior
    truth = torch.from_numpy(problem.truth)[:, None]
    out: Record = {}
    for t in TIMES:
        errors: list[Tensor] = []
        features: dict[str, list[Tensor]] = {kind: [] for kind in heads}
        first = 0
        for y, measurement, names in problem.batches:
            x0 = SPAN.to_prior(truth[first : first + len(y)])
            first += len(y)
            times = torch.full((len(y),), t)
            noise = normal_like(x0, [generator_for(shop.options.seed, "worth", name, t) for name in names])
            x0h, _ = prior.predict(prior.schedule.add_noise(x0, noise, times), times)
            errors.append(x0 - x0h)
            likelihood = measurement.likelihood(y, SPAN)
            for kind, head in heads.items():
                features[kind].append(head.guidance_at(likelihood, x0h, times))
        error = torch.cat(errors)
        out[str(t)] = {"without": rms_hu(error)}
        for kind, found in features.items():
            feature = torch.cat(found)
            best = (feature * error).sum() / feature.square().sum()
            out[str(t)][kind] = rms_hu(error - best * feature)
    return out


def rms_hu(error: Tensor) -> float:
    """In HU, of values in the prior's range."""
    return float(error.square().mean().sqrt() * SPAN.scale)


def found(row: Record, which: str) -> list[float]:
    """PSNR of every slice."""
    return values(row["direct" if which == "direct_mean" else "sampled"], which)


def markdown(record: Record) -> str:
    """PSNR by kind, and the paired differences from the shipped kind."""
    rows = record["rows"]
    lines = ["# Kinds of guidance", "", f"PSNR in dB; in brackets the paired difference from {BASE}.", ""]
    body = []
    for kind, row in rows.items():
        cells = [kind]
        for which in ESTIMATES:
            value = f"{mean_interval(found(row, which)).mean:.2f}"
            ours, base = found(row, which), found(rows[BASE], which)
            cells.append(value if kind == BASE else f"{value}, {interval_text(difference(ours, base))}")
        rate = row["sampled"]["seconds_per_slice"] / record["protocol"]["samples"]
        body.append([*cells, f"{rate:.2f}", str(row["seconds"])])
    lines += table(["guidance", *ESTIMATES.values(), "a sample (s)", "training (s)"], body)
    slices = len(found(rows[BASE], "single"))
    lines += ["", "RMS error (HU) of the prior's estimate with the best multiple of the guidance added:", ""]
    names = list(next(iter(record["worth_hu"].values())))
    error = [[f"t = {t}", *(f"{row[name]:.1f}" for name in names)] for t, row in record["worth_hu"].items()]
    lines += table(["time", *names], error)
    lines += [
        "", f"Scan {record['scan']}; TV reference alone {record['reference']['psnr_db']['mean']:.2f} dB; mean of "
        f"{record['protocol']['samples']} samples, 20 evaluations each. {footer(record, slices)}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=800)
    parser.add_argument("--scan", default="parallel60_1e5")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    record = run(options)
    write(Path(options.out), "guidance_kinds", record, markdown(record))


if __name__ == "__main__":
    main()
