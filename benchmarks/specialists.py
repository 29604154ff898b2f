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
AMORTISED, LONG = "any scan", "any scan, longer"
ANY = (AMORTISED, LONG)
GEOMETRIES, NOISE_LEVELS = 32, 4  # of the random scans, as in the command


def any_scan_head(shop: Workshop, scans: list[Scan], steps: int | None = None) -> HTransform:
    """The amortised head: half of its steps on the named scans, half on random ones."""
    drawn = [halved_scan(scan) for scan in ScanRange().draw(GEOMETRIES, shop.options.seed, levels=NOISE_LEVELS)]
    config = HTransformConfig(scan_features=True, spread_slopes=SPREAD_SLOPES, network=shop.network())
    return shop.head(
        AMORTISED, config, unit_measurements(scans + drawn, shop.source.image_shape, shop.pixel_mm),
        weights=[0.5 / len(scans)] * len(scans) + [0.5 / len(drawn)] * len(drawn),
        card={"of": AMORTISED, "named": [scan.name for scan in scans]}, steps=steps,
    )  # fmt: skip


def run(options: argparse.Namespace) -> Record:
    """Train what is missing and measure every head on every scan."""
    shop = Workshop(options, samples=1)
    scans = {name: halved_scan(name) for name in options.scans}
    heads = {AMORTISED: any_scan_head(shop, list(scans.values()))}
    if options.long:
        heads[LONG] = any_scan_head(shop, list(scans.values()), options.long)
    heads |= {name: shop.one_scan_head(scan) for name, scan in scans.items()}
    trained = {
        label: {
            "seconds": head.card["seconds"],
            "steps": head.card["training_steps"],
            "sha256": head.content_hash(),
            "config": head.config.to_dict(),
        }
        for label, head in heads.items()
    }
    cells: Record = {}
    for name, scan in scans.items():
        for label, head in heads.items():
            cells.setdefault(name, {})[label] = shop.measured(head, scan, estimate="mean", draws=2)
        own = f"{values(cells[name][name], 'direct_mean')[0]:.2f}"
        print(f"{name}: measured, first slice of its specialist {own} dB", flush=True)
    samples = {
        name: {label: shop.measured(heads[label], scan, estimate="samples") for label in heads if label in (*ANY, name)}
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


Found = dict[str, dict[str, list[float]]]


def markdown(record: Record) -> str:
    """The matrix of all heads and scans, and the paired differences."""
    cells = record["direct_mean"]
    found: Found = {
        name: {label: values(cell, "direct_mean") for label, cell in row.items()} for name, row in cells.items()
    }
    slices = len(next(iter(found.values()))[AMORTISED])
    lines = ["# One head for any scan against specialists", "", "PSNR (dB) of the direct mean; rows: heads.", ""]
    rows = [
        [label, *(f"{mean_interval(found[name][label]).mean:.2f}" for name in found), steps_and_seconds(head)]
        for label, head in record["heads"].items()
    ]
    reference = [f"{record['reference'][name]['psnr_db']['mean']:.2f}" for name in found]
    rows.append(["TV reference alone", *reference, ""])
    lines += [*table(["trained for", *found, "steps, s"], rows), ""]
    for mine in (label for label in ANY if label in record["heads"]):
        lines += [f"Head for {mine} (dB), paired with the specialist of the scan and the best other specialist:", ""]
        head = ["scan", "minus its specialist", "of one sample", "minus the best other specialist", "others it beats"]
        lines += [*table(head, differences(record, found, mine)), ""]
    return "\n".join([*lines, footer(record, slices), ""])


def steps_and_seconds(head: Record) -> str:
    return f"{head['steps']}, {head['seconds']}"


def differences(record: Record, found: Found, mine: str) -> list[list[str]]:
    """A row for each scan: an amortised head minus the specialists."""
    rows = []
    for name, row in found.items():
        others = {label: theirs for label, theirs in row.items() if label not in (*ANY, name)}
        gains = {label: difference(row[mine], theirs) for label, theirs in others.items()}
        best = min(gains, key=lambda label: gains[label].mean)
        better = sum(gain.low > 0 for gain in gains.values())  # beyond the interval
        single = record["single"].get(name, {})
        one = [values(single[label], "single") for label in (mine, name) if label in single]
        rows.append([
            name, interval_text(difference(row[mine], row[name])),
            interval_text(difference(*one)) if len(one) == 2 else "",
            f"{interval_text(gains[best])} ({best})", f"{better} of {len(others)}",
        ])  # fmt: skip
    return rows


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=800)
    parser.add_argument("--scans", nargs="+", default=SCANS)
    parser.add_argument("--samples", action=argparse.BooleanOptionalAction, default=True, help="single samples, too")
    parser.add_argument("--long", type=int, default=0, help="steps of a second head for any scan, trained longer")
    options = parser.parse_args()
    record = run(options)
    write(Path(options.out), "specialists", record, markdown(record))


if __name__ == "__main__":
    main()
