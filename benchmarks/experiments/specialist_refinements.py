"""One refinement of the TV reference for any scan against one for each scan, at equal training cost, at 128 x 128.

The direct mean of the shipped h-transform is for the most part its refined reference. Every refinement is trained for
the same number of steps, from a table of the same size; the one for any scan spends half of its batches on the named
scans and half on random ones. Each is then measured on every scan. ``--finetune K L`` fits the one for any scan to each
scan in K, and in L, further steps at a third of the learning rate, on a table that is smaller in proportion.

Run: python benchmarks/experiments/specialist_refinements.py --work runs/halved --out benchmarks/results
(run again to resume)
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from halved import halved_scan
from halved_heads import (
    Record,
    Workshop,
    add_options,
    cached,
    difference,
    footer,
    interval_text,
    slug,
    spread_of,
    table,
    write,
)

from deft_ct.ct.pairs import SlicePairs
from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange, unit_measurements
from deft_ct.evaluation.metrics import evaluate
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import load_refinement, save_refinement
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES, scan_features
from deft_ct.methods.deft.initial_table import ReferenceTable, TableConfig, tabulate
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.train_refinement import train_refinement
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.networks import UNetConfig

SCANS = (
    "parallel20_1e5", "parallel60_1e5", "parallel120_1e5", "fan60_1e5", "parallel60_1e5_120deg", "parallel60_1e4",
)  # fmt: skip
AMORTISED = "any scan"
GEOMETRIES, NOISE_LEVELS = 32, 4  # of the random scans
NETWORK = UNetConfig(  # as in the shipped one
    channels=(32, 64, 96, 128), attention=(False,) * 4, patch=2, norm_groups=8, scale_shift=True
)
TV_ITERATIONS = 40


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A refinement with what it was trained on.

    Args:
        refinement: the network.
        pairs: draws the slices and data.
        tabulated: what its references are.
        folder: of the references.
    """

    refinement: Refinement
    pairs: SlicePairs
    tabulated: TableConfig
    folder: Path

    @property
    def references(self) -> ReferenceTable:
        """Read from the disk, computed where they are missing."""
        return tabulate(self.pairs, self.tabulated, self.folder, progress=False)


def trained(
    shop: Workshop, label: str, config: RefinementConfig, pairs: SlicePairs, initial: Refinement | None = None,
    steps: int = 0,
) -> Trained:  # fmt: skip
    """The refinement ``label``, trained unless it is there; its card says the processor time."""
    training, batches = shop.training, shop.options.batches
    if initial is not None:
        training = replace(training, steps=steps, learning_rate=training.learning_rate / 3, warmup=10)
        batches = math.ceil(batches * steps / shop.training.steps)
    tabulated = TableConfig(
        batches=batches, batch_size=training.batch_size, tv_iterations=TV_ITERATIONS,
        scan_features=config.scan_features, seed=training.seed,
    )  # fmt: skip
    identity = [config.to_dict(), asdict(training), tabulated.to_dict()] + ([initial.content_hash()] if initial else [])
    folder = shop.options.work / "refinements" / slug(label, *identity)
    if not (folder / "refinement" / "refinement.json").is_file():
        began = time.process_time()
        made = train_refinement(
            pairs, folder, config=config, table=tabulated, training=training, initial=initial, progress=False
        )  # fmt: skip
        made.card |= {"training_steps": training.steps, "seconds": round(time.process_time() - began)}
        save_refinement(made, folder / "refinement", dtype=torch.float32)
        print(f"{label}: trained, {made.card['seconds']} s of one core", flush=True)
    return Trained(
        refinement=load_refinement(folder / "refinement"), pairs=pairs, tabulated=tabulated,
        folder=folder / "references",
    )  # fmt: skip


def any_scan_pairs(shop: Workshop, scans: list[Scan]) -> SlicePairs:
    """Half of the batches of the named scans, half of random ones, as ``deft-ct train ... --any-scan`` draws them."""
    drawn = [halved_scan(scan) for scan in ScanRange().draw(GEOMETRIES, shop.options.seed, levels=NOISE_LEVELS)]
    return SlicePairs(
        shop.source, unit_measurements(scans + drawn, shop.source.image_shape, shop.pixel_mm), PriorRange(),
        weights=[0.5 / len(scans)] * len(scans) + [0.5 / len(drawn)] * len(drawn),
    )  # fmt: skip


def one_scan_pairs(shop: Workshop, scan: Scan) -> SlicePairs:
    """All batches of one scan."""
    return SlicePairs(shop.source, [scan.unit_measurement(shop.source.image_shape, shop.pixel_mm)], PriorRange())


def for_any_scan(shop: Workshop, scans: list[Scan], network: UNetConfig) -> Trained:
    """The amortised refinement."""
    config = RefinementConfig(scan_features=True, spread_slopes=SPREAD_SLOPES, network=network)
    return trained(shop, AMORTISED, config, any_scan_pairs(shop, scans))


def for_one_scan(shop: Workshop, scan: Scan, network: UNetConfig) -> Trained:
    """A specialist."""
    pairs = one_scan_pairs(shop, scan)
    return trained(shop, scan.name, RefinementConfig(spread=spread_of(pairs.measurements[0]), network=network), pairs)


def fitted(shop: Workshop, scan: Scan, initial: Refinement, steps: int) -> Trained:
    """The one for any scan, trained on with one scan for some steps."""
    return trained(shop, f"any to {scan.name}", initial.config, one_scan_pairs(shop, scan), initial, steps)


@torch.no_grad()
def psnr_of(shop: Workshop, scan: Scan, refinement: Refinement | None) -> list[float]:
    """PSNR of every slice, of the refined reference or of the TV reference alone."""
    name = "tv" if refinement is None else refinement.content_hash()
    path = (
        shop.options.work / "cells" / f"{slug('refined', name, scan.name, shop.options.every, shop.options.seed)}.json"
    )

    def compute() -> Record:
        problem, span, images = shop.problem(scan), PriorRange(), []
        for y, measurement, _ in problem.batches:
            likelihood = measurement.likelihood(y, span)
            image = reference_reconstruction(likelihood, "tv", iterations=TV_ITERATIONS)
            if refinement is not None:
                told = scan_features(likelihood) if refinement.config.scan_features else None
                image = refinement(image, refinement.guidance.of_initial(likelihood, image, 1.0), told)
            images.append(span.affine(image)[:, 0].numpy())
        found = evaluate(np.concatenate(images), problem.truth, data_range_hu=2000.0, body=problem.body)
        return {"psnr_db": found.psnr.tolist()}

    return list(cached(path, compute)["psnr_db"])


def run(options: argparse.Namespace) -> Record:
    """Train what is missing and measure every refinement on every scan."""
    shop = Workshop(options)
    network = replace(NETWORK, norm_groups=options.norm_groups, scale_shift=options.scale_shift)
    scans = {name: halved_scan(name) for name in options.scans}
    specialists = options.scans if options.specialists is None else options.specialists
    made = {AMORTISED: for_any_scan(shop, list(scans.values()), network).refinement}
    made |= {name: for_one_scan(shop, scans[name], network).refinement for name in specialists}
    tuned = {
        steps: {name: fitted(shop, scans[name], made[AMORTISED], steps).refinement for name in specialists}
        for steps in options.finetune
    }
    return {
        "protocol": shop.protocol(prior=False)
        | {"references": options.batches * options.batch_size, "network": network.to_dict()},
        "refinements": {label: r.card | {"sha256": r.content_hash()} for label, r in made.items()},
        "psnr_db": {name: {label: psnr_of(shop, scan, r) for label, r in made.items()} for name, scan in scans.items()},
        "finetuned": {
            str(steps): {
                name: {"psnr_db": psnr_of(shop, scans[name], r)} | r.card | {"sha256": r.content_hash()}
                for name, r in row.items()
            }
            for steps, row in tuned.items()
        },
        "tv_psnr_db": {name: psnr_of(shop, scan, None) for name, scan in scans.items()},
    }


Found = dict[str, dict[str, list[float]]]
"""PSNR of every slice, for each scan and each network."""


def differences(found: Found) -> list[list[str]]:
    """A row for each scan: the amortised network minus its specialist, minus the best other one, how many it beats."""
    rows = []
    for name, row in found.items():
        mine, others = row[AMORTISED], {label: row[label] for label in row if label not in (AMORTISED, name)}
        gains = {label: difference(mine, theirs) for label, theirs in others.items()}
        best = min(gains, key=lambda label: gains[label].mean, default=None)
        better = sum(gain.low > 0 for gain in gains.values())  # beyond the interval
        rows.append([
            name, interval_text(difference(mine, row[name])),
            "" if best is None else f"{interval_text(gains[best])} ({best})", f"{better} of {len(others)}",
        ])  # fmt: skip
    return rows


def markdown(record: Record) -> str:
    """The matrix of all refinements and scans, and the paired differences where there are specialists."""
    found = record["psnr_db"]
    rows = [
        [label, *(f"{mean_interval(found[name][label]).mean:.2f}" for name in found), f"{card['seconds']}"]
        for label, card in record["refinements"].items()
    ]
    for steps, tuned in record["finetuned"].items():
        means = [f"{np.mean(tuned[name]['psnr_db']):.2f}" if name in tuned else "" for name in found]
        seconds = max(card["seconds"] for card in tuned.values())
        rows.append([f"any scan, then {steps} steps on the scan", *means, f"+{seconds} each"])
    rows.append(["TV alone", *(f"{np.mean(record['tv_psnr_db'][name]):.2f}" for name in found), ""])
    lines = ["# One refinement for any scan against specialists", ""]
    lines += ["PSNR (dB) of the refined reference; rows: trained for.", "", *table(["trained for", *found, "s"], rows)]
    known = {name: row for name, row in found.items() if name in record["refinements"]}
    if known:
        head = ["scan", "any scan minus its specialist", "minus the best other specialist", "others it beats"]
        gains = differences(known)
        for steps, tuned in reversed(record["finetuned"].items()):
            head.insert(2, f"fitted in {steps} steps, minus its specialist")
            for row in gains:
                row.insert(2, interval_text(difference(tuned[row[0]]["psnr_db"], known[row[0]][row[0]])))
        lines += ["", *table(head, gains)]
    slices = len(next(iter(found.values()))[AMORTISED])
    pairs = record["protocol"]["references"]
    text = f"{pairs} references of 40 iterations of TV for each. {footer(record, slices)}"
    return "\n".join([*lines, "", text, ""])


def parser() -> argparse.ArgumentParser:
    """The options, whose defaults are the experiment."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(made, steps=2000)
    made.set_defaults(learning_rate=6e-3, momentum=0.9)
    made.add_argument("--scans", nargs="+", default=SCANS, help="named and measured")
    made.add_argument("--specialists", nargs="*", help="scans to train one for; all of them by default")
    made.add_argument("--norm-groups", type=int, default=NETWORK.norm_groups)
    made.add_argument("--scale-shift", action=argparse.BooleanOptionalAction, default=NETWORK.scale_shift)
    made.add_argument("--batches", type=int, default=640, help="of references, for each refinement")
    made.add_argument(
        "--finetune", type=int, nargs="*", default=(), help="steps of fitting the one for any scan to each scan"
    )
    return made


def main() -> None:
    """Run, print, write."""
    options = parser().parse_args()
    record = run(options)
    write(Path(options.out), "specialist_refinements", record, markdown(record))


if __name__ == "__main__":
    main()
