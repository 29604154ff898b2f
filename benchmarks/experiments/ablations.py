"""The ablations of the paper (arXiv 2406.01781, appendix F.1) on real CT at 128 x 128: what the h-transform sees.

Heads of the paper's form (no reference) are trained at equal cost, on the same slices, noise and order, and their
posteriors are sampled for the same data. ``A* y`` is filtered back-projection of the data in the place of that of the
residual, without the learned multiple ``NN2(t)``, as in the paper. One head that the paper has not has guidance "cg".
The heads have the shape of the prior and start from its weights; with ``--small`` they are small and start from random
ones, as the paper's do.

Run: python benchmarks/experiments/halved.py --out runs/halved, then
     python benchmarks/experiments/ablations.py --work runs/halved --out benchmarks/results    (run again to go on)
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from torch import nn

from deft_ct.evaluation.statistics import mean_interval
from deft_ct.methods.deft import HTransform, HTransformConfig

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "conjugate gradients for g": {"guidance": "cg"},
    "without x0h": {"use_tweedie": False},
    "A* y": {"guidance": "data", "time_scaling": False, "guidance_scale": 1.0},
    "A* y, without x0h": {
        "guidance": "data", "time_scaling": False, "guidance_scale": 1.0, "use_tweedie": False,
    },
}  # fmt: skip
PAPER = {"full": 35.81, "without x0h": 35.74, "A* y": 34.04, "A* y, without x0h": 26.62}
"""PSNR (dB) in the paper's Table 6: other data, scan, prior and networks, so only the order can be compared."""
SMALL = (32, 32, 64)
"""Channels of the small heads."""
SAMPLERS: dict[str, dict[str, Any]] = {
    "50 DDIM": {"estimate": "samples", "sampler": "ddim", "grid": "uniform", "eta": 1.0, "steps": 50},
    "20 DPM": {"estimate": "samples", "steps": 20},
}
NOTES = {
    "50 DDIM": "50 steps of DDIM, eta 1, uniform grid (the sampler of the paper, which takes 100)",
    "20 DPM": "20 steps of DPM-Solver++, eta 1, log-SNR grid (the default)",
}


def run(options: argparse.Namespace) -> Record:
    """Train what is missing, measure, compare with the full head."""
    shop = Workshop(options)
    scan = halved_scan(options.scan)
    measurement = scan.unit_measurement(shop.source.image_shape, shop.pixel_mm)
    network = replace(shop.network(), channels=SMALL) if options.small else shop.network()
    heads: dict[str, HTransform] = {}
    for name in dict.fromkeys(("full", *options.heads)):
        config = HTransformConfig(reference="none", network=network, **{"guidance": "fbp", **VARIANTS[name]})
        heads[name] = shop.head(
            f"ablation {name}", config, [measurement], card={"of": scan.name}, from_prior=not options.small
        )
    rows: dict[str, Record] = {}
    for name, head in heads.items():
        rows[name] = {"seconds": head.card["seconds"], "sha256": head.content_hash(), "config": head.config.to_dict()}
        rows[name]["parameters"] = parameters(head)
        for label in options.samplers:
            rows[name][label] = shop.measured(head, scan, **SAMPLERS[label])
            print(name, label, f"{rows[name][label]['mean']['psnr_db']['mean']:.2f} dB", flush=True)
    return {
        "protocol": shop.protocol(), "scan": scan.name, "rows": rows, "paper_db": PAPER, "small": options.small,
        "prior_parameters": parameters(shop.prior.network),
    }  # fmt: skip


def parameters(network: nn.Module) -> int:
    """How many weights it has."""
    return sum(p.numel() for p in network.parameters())


def markdown(record: Record) -> str:
    """A table for each sampler."""
    rows = record["rows"]
    lines, slices = ["# Ablations of the paper's head", ""], 0
    for label in (label for label in SAMPLERS if label in rows["full"]):
        lines += [f"{NOTES[label]}; PSNR in dB.", ""]
        body = []
        for name, row in rows.items():
            cells, slices = [name], len(values(row[label], "single"))
            for which in ("single", "mean"):
                found, full = values(row[label], which), values(rows["full"][label], which)
                cells.append(f"{mean_interval(found).mean:.2f}")
                cells.append("" if name == "full" else interval_text(difference(found, full)))
            body.append([*cells, str(record["paper_db"].get(name, "-")), str(row["seconds"])])
        count = record["protocol"]["samples"]
        head = ["head", "one sample", "minus full", f"mean of {count}", "minus full", "paper", "training (s)"]
        lines += [*table(head, body), ""]
    start = "small, from random weights" if record["small"] else "of the shape of the prior, from its weights"
    lines += [
        f"Heads {start} (full: {rows['full']['parameters']:,} parameters, prior: {record['prior_parameters']:,}). "
        f"Scan {record['scan']}. The paper's column is its Table 6 on other data, with other networks: only the order "
        f"can be compared. {footer(record, slices)}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=1000)
    parser.add_argument("--scan", default="parallel60_1e5")
    parser.add_argument("--samplers", nargs="+", choices=tuple(SAMPLERS), default=tuple(SAMPLERS))
    parser.add_argument("--heads", nargs="+", choices=tuple(VARIANTS), default=tuple(VARIANTS), help="besides full")
    parser.add_argument("--small", action="store_true", help="small heads from random weights")
    options = parser.parse_args()
    record = run(options)
    name = "ablations_small" if options.small else "ablations"
    write(Path(options.out), name if options.seed == 0 else f"{name}_seed{options.seed}", record, markdown(record))


if __name__ == "__main__":
    main()
