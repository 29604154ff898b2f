"""One head for any scan against a specialist for each scan, at equal training cost, on real CT at 128 x 128.

Every head has the shipped form and takes the same number of steps from the prior's weights. The head for any scan
spends half of them on the named scans and half on random ones, as ``deft-ct train htransform --any-scan`` does; a
specialist spends all of them on its scan. Each is then measured on every scan. They start from the reference that the
refinement for any scan of ``specialist_refinements.py`` has improved; with ``--bare`` from TV alone.

Run: python benchmarks/experiments/halved.py --out runs/halved, then
     python benchmarks/experiments/specialists.py --work runs/halved --out benchmarks/results    (run again to go on)
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
    spread_of,
    table,
    values,
    write,
)
from specialist_refinements import (
    AMORTISED,
    NETWORK,
    SCANS,
    TV_ITERATIONS,
    Found,
    Trained,
    differences,
    for_any_scan,
    for_one_scan,
)
from specialist_refinements import parser as refinement_parser

from deft_ct.ct.scan import Scan
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.methods.deft import HTransform, HTransformConfig
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES

STEPS = 800


def heads_of(shop: Workshop, scans: dict[str, Scan], *, bare: bool) -> dict[str, HTransform]:
    """The amortised head and the specialists, each on the slices, data and TV references of its refinement."""
    options = shop.options
    theirs = refinement_parser().parse_args([])
    theirs.work, theirs.seed, theirs.precision = options.work, options.seed, options.precision
    theirs.steps, theirs.batches, theirs.batch_size = options.refinement_steps, options.batches, options.batch_size
    workshop = Workshop(theirs)
    any_scan = for_any_scan(workshop, list(scans.values()), NETWORK)
    chosen = options.scans if options.specialists is None else options.specialists
    sources = {AMORTISED: any_scan} | {name: for_one_scan(workshop, scans[name], NETWORK) for name in chosen}
    return {label: head_on(shop, label, source, None if bare else any_scan) for label, source in sources.items()}


def head_on(shop: Workshop, label: str, source: Trained, shared: Trained | None) -> HTransform:
    """A head trained on the pairs of ``source``, around the refinement that all of them share, if there is one."""
    refinement = None if shared is None else shared.refinement
    told = refinement is not None or label == AMORTISED
    if refinement is not None:
        spread = refinement.typical_error
    else:
        spread = HTransformConfig.spread if told else spread_of(source.pairs.measurements[0])
    config = HTransformConfig(
        spread=spread, scan_features=told, spread_slopes=SPREAD_SLOPES if told else (), tv_iterations=TV_ITERATIONS,
        refinement=None if refinement is None else refinement.config, network=shop.network(),
    )  # fmt: skip
    weights = source.pairs.weights
    return shop.head(
        label, config, source.pairs.measurements, weights=None if weights is None else weights.tolist(),
        card={"of": label}, refinement=refinement, references=lambda: source.references,
    )  # fmt: skip


def run(options: argparse.Namespace) -> Record:
    """Train what is missing and measure every head on every scan."""
    shop = Workshop(options, samples=1)
    scans = {name: halved_scan(name) for name in options.scans}
    heads = heads_of(shop, scans, bare=options.bare)
    trained = {
        label: {"seconds": head.card["seconds"], "sha256": head.content_hash(), "config": head.config.to_dict()}
        for label, head in heads.items()
    }
    cells: Record = {}
    for name, scan in scans.items():
        for label, head in heads.items():
            cells.setdefault(name, {})[label] = shop.measured(head, scan, estimate="mean")
        means = [f"{mean_interval(values(cell, 'direct_mean')).mean:.2f}" for cell in cells[name].values()]
        print(f"{name}: measured, {', '.join(means)} dB", flush=True)
    samples = {
        name: {label: shop.measured(heads[label], scans[name], estimate="samples") for label in (AMORTISED, name)}
        for name in heads
        if name != AMORTISED
    }
    reference = {name: shop.reference(scan, heads[AMORTISED]) for name, scan in scans.items()}
    return {
        "protocol": shop.protocol(), "bare": options.bare, "reference": reference, "heads": trained,
        "direct_mean": cells, "single": samples,
    }  # fmt: skip


def markdown(record: Record) -> str:
    """The matrix of all heads and scans, and the paired differences."""
    found: Found = {
        name: {label: values(cell, "direct_mean") for label, cell in row.items()}
        for name, row in record["direct_mean"].items()
    }
    slices = len(next(iter(found.values()))[AMORTISED])
    base = "TV alone" if record["bare"] else "the reference refined for any scan, alone"
    lines = ["# One head for any scan against specialists", ""]
    lines += [f"PSNR (dB) of the direct mean; rows: heads. All start from {base}.", ""]
    rows = [
        [label, *(f"{mean_interval(found[name][label]).mean:.2f}" for name in found), str(head["seconds"])]
        for label, head in record["heads"].items()
    ]
    rows.append([base, *(f"{record['reference'][name]['psnr_db']['mean']:.2f}" for name in found), ""])
    lines += [*table(["trained for", *found, "s"], rows), ""]
    apart = differences({name: found[name] for name in found if name in record["heads"]})
    for row in apart:
        single = record["single"][row[0]]
        one = difference(values(single[AMORTISED], "single"), values(single[row[0]], "single"))
        row.insert(2, interval_text(one))
    head = ["scan", "any scan minus its specialist", "of one sample", "minus the best other specialist"]
    lines += [*table([*head, "others it beats"], apart), "", footer(record, slices), ""]
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, steps=STEPS)
    parser.add_argument("--scans", nargs="+", default=SCANS)
    parser.add_argument("--specialists", nargs="*", help="scans to train one for; all of them by default")
    parser.add_argument("--bare", action="store_true", help="start from TV alone, without the refinement")
    parser.add_argument("--refinement-steps", type=int, default=2000, help="of each refinement, made where missing")
    parser.add_argument("--batches", type=int, default=640, help="of references for each of them, and for each head")
    options = parser.parse_args()
    record = run(options)
    name = "specialists_bare" if options.bare else "specialists"
    write(Path(options.out), name if options.steps == STEPS else f"{name}_{options.steps}", record, markdown(record))


if __name__ == "__main__":
    main()
