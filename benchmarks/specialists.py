"""One head for any scan against a specialist for each scan, at equal training cost, on real CT at 128 x 128.

Every head takes the same number of steps on the same slices in the same order, and starts from the prior's weights. The
head for any scan spends half of its steps on the named scans and half on random ones, as ``deft-ct train htransform
--any-scan`` does; a specialist spends all of them on its scan. Each is then measured on every scan.

Run: python benchmarks/halved.py --out runs/halved, then
     python benchmarks/specialists.py --work runs/halved --out benchmarks/results    (run again to go on)
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

from deft_ct.htransform import HTransform, HTransformConfig
from deft_ct.htransform.features import SPREAD_SLOPES
from deft_ct.metrics import mean_interval
from deft_ct.scan import Scan, ScanRange, unit_measurements

SCANS = (
    "parallel20_1e5", "parallel60_1e5", "parallel120_1e5", "fan60_1e5", "parallel60_1e5_120deg", "parallel60_1e4",
)  # fmt: skip
AMORTISED = "any scan"
GEOMETRIES, NOISE_LEVELS = 32, 4  # of the random scans, as in the command


def any_scan_head(shop: Workshop, scans: list[Scan]) -> HTransform:
    """The amortised head: half of its steps on the named scans, half on random ones."""
    drawn = [halved_scan(scan) for scan in ScanRange().draw(GEOMETRIES, shop.options.seed, levels=NOISE_LEVELS)]
    config = HTransformConfig(scan_features=True, spread_slopes=SPREAD_SLOPES, network=shop.network())
    return shop.head(
        AMORTISED, config, unit_measurements(scans + drawn, shop.source.image_shape, shop.pixel_mm),
        weights=[0.5 / len(scans)] * len(scans) + [0.5 / len(drawn)] * len(drawn),
        card={"of": AMORTISED, "named": [scan.name for scan in scans]},
    )  # fmt: skip


def run(options: argparse.Namespace) -> Record:
    """Train what is missing and measure every head on every scan."""
    shop = Workshop(options, samples=1)
    scans = {name: halved_scan(name) for name in options.scans}
    heads = {AMORTISED: any_scan_head(shop, list(scans.values()))}
    heads |= {name: shop.one_scan_head(scan) for name, scan in scans.items()}
    trained = {
        label: {"seconds": head.card["seconds"], "sha256": head.content_hash(), "config": head.config.to_dict()}
        for label, head in heads.items()
    }
    cells: Record = {}
    for name, scan in scans.items():
        for label, head in heads.items():
            cells.setdefault(name, {})[label] = shop.measured(head, scan, estimate="mean", draws=2)
        own = f"{values(cells[name][name], 'direct_mean')[0]:.2f}"
        print(f"{name}: measured, first slice of its specialist {own} dB", flush=True)
    samples = {
        name: {label: shop.measured(heads[label], scan, estimate="samples") for label in (AMORTISED, name)}
        for name, scan in scans.items()
        if options.samples
    }
    reference = {name: shop.reference(scan) for name, scan in scans.items()}
    return {
        "protocol": shop.protocol(),
        "reference": reference,
        "heads": trained,
        "direct_mean": cells,
        "single": samples,
    }


def markdown(record: Record) -> str:
    """The matrix of all heads and scans, and the paired differences."""
    cells, samples = record["direct_mean"], record["single"]
    found = {name: {label: values(cell, "direct_mean") for label, cell in row.items()} for name, row in cells.items()}
    slices = len(next(iter(found.values()))[AMORTISED])
    lines = ["# One head for any scan against specialists", "", "PSNR (dB) of the direct mean; rows: heads.", ""]
    rows = [
        [label, *(f"{mean_interval(found[name][label]).mean:.2f}" for name in found), str(head["seconds"])]
        for label, head in record["heads"].items()
    ]
    reference = [f"{record['reference'][name]['psnr_db']['mean']:.2f}" for name in found]
    rows.append(["TV reference alone", *reference, ""])
    lines += [*table(["trained for", *found, "training (s)"], rows), ""]
    lines += ["The head for any scan minus the specialist of the scan, and minus the best other specialist, in dB:", ""]
    rows = []
    for name in found:
        mine = found[name][AMORTISED]
        others = {k: v for k, v in found[name].items() if k not in (AMORTISED, name)}
        best = max(others, key=lambda k: mean_interval(others[k]).mean)
        one = ""
        if samples:
            pair = [values(samples[name][label], "single") for label in (AMORTISED, name)]
            one = interval_text(difference(*pair))
        rows.append([
            name, interval_text(difference(mine, found[name][name])), one,
            f"{interval_text(difference(mine, others[best]))} ({best})", wins(found, name),
        ])  # fmt: skip
    head = ["scan", "minus its specialist", "of one sample", "minus the best other specialist", "others it beats"]
    lines += [*table(head, rows), "", footer(record, slices), ""]
    return "\n".join(lines)


def wins(found: dict[str, dict[str, list[float]]], name: str) -> str:
    """How many of the specialists of other scans the amortised head beats on this scan, beyond the interval."""
    others = [theirs for label, theirs in found[name].items() if label not in (AMORTISED, name)]
    better = sum(difference(found[name][AMORTISED], theirs).low > 0 for theirs in others)
    return f"{better} of {len(others)}"


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=800)
    parser.add_argument("--scans", nargs="+", default=SCANS)
    parser.add_argument("--samples", action=argparse.BooleanOptionalAction, default=True, help="single samples, too")
    options = parser.parse_args()
    record = run(options)
    write(Path(options.out), "specialists", record, markdown(record))


if __name__ == "__main__":
    main()
