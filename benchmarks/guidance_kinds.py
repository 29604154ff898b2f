"""Kinds of guidance of the shipped form of the h-transform (TV reference), on real CT at 128 x 128.

A head for each kind, trained at equal cost on the same slices, noise and order, and measured on the same data.

Run: python benchmarks/halved.py --out runs/halved, then
     python benchmarks/guidance_kinds.py --work runs/halved --out benchmarks/results    (run again to go on)
"""

from __future__ import annotations

import argparse
from pathlib import Path

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

from deft_ct.metrics import mean_interval

KINDS = ("fbp", "adjoint", "cg", "split")
BASE = "fbp"
ESTIMATES = {"direct_mean": "direct mean", "single": "one sample", "mean": "mean of samples"}


def run(options: argparse.Namespace) -> Record:
    """Train what is missing and measure every kind."""
    shop = Workshop(options, samples=options.samples)
    scan = halved_scan(options.scan)
    rows: Record = {}
    for kind in options.kinds:
        head = shop.one_scan_head(scan, kind)
        rows[kind] = {"seconds": head.card["seconds"], "sha256": head.content_hash(), "config": head.config.to_dict()}
        rows[kind] |= {
            "direct": shop.measured(head, scan, estimate="mean", draws=2),
            "sampled": shop.measured(head, scan, estimate="samples", steps=20),
        }
        print(f"{kind}: direct mean {rows[kind]['direct']['direct_mean']['psnr_db']['mean']:.2f} dB", flush=True)
    return {"protocol": shop.protocol(), "scan": scan.name, "rows": rows}


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
    lines += [
        "", f"Scan {record['scan']}; mean of {record['protocol']['samples']} samples, 20 evaluations each. "
        f"{footer(record, slices)}", "",
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
