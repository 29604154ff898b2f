"""One refinement for any scan against a specialist for each scan, at equal training cost, on real CT at 128 x 128.

A refinement improves the TV reconstruction that DEFT starts from; most of the quality of the shipped direct mean comes
from it. Every refinement is trained for the same number of steps and from a table of the same size. The one for any
scan spends half of its batches on the named scans and half on random scans. Each is then measured on every scan.
``--finetune K L`` also fine-tunes the one for any scan on each scan, for K and for L steps, at a third of the learning
rate and on a table that is smaller in proportion.

Run: python benchmarks/experiments/halved.py --out runs/halved
     python benchmarks/experiments/specialist_refinements.py --work runs/halved --out benchmarks/results
(again to resume)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deft_ct.datasets.halved import halved_scan
from deft_ct.evaluation.paired import paired_difference, signed_interval
from deft_ct.evaluation.specialists import against_specialists
from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.workflows.experiments.arguments import experiment_parser
from deft_ct.workflows.experiments.refinements import (
    AMORTISED,
    LEARNING_RATE,
    MOMENTUM,
    NAMED_SCANS,
    RefinementSettings,
    RefinementStudy,
)
from deft_ct.workflows.experiments.study import Study, StudySettings, add_study_arguments, footnote

SETTINGS = RefinementSettings()


def run(arguments: argparse.Namespace) -> Record:
    """Train what is missing and measure every refinement on every scan."""
    network = replace(SETTINGS.network, norm_groups=arguments.norm_groups, scale_shift=arguments.scale_shift)
    study = Study(StudySettings.from_arguments(arguments), log=print)
    refinements = RefinementStudy(study, replace(SETTINGS, network=network, batches=arguments.batches))
    scans = {name: halved_scan(name) for name in arguments.scans}
    specialists = arguments.scans if arguments.specialists is None else arguments.specialists
    made = {AMORTISED: refinements.for_any_scan(list(scans.values())).refinement}
    made |= {name: refinements.for_scan(scans[name]).refinement for name in specialists}
    tuned = {
        steps: {name: refinements.fine_tune(scans[name], made[AMORTISED], steps).refinement for name in specialists}
        for steps in arguments.finetune
    }
    return {
        "protocol": study.protocol(prior=False)
        | {"references": arguments.batches * arguments.batch_size, "network": network.to_dict()},
        "refinements": {label: r.card | {"sha256": r.content_hash()} for label, r in made.items()},
        "psnr_db": {
            name: {label: refinements.psnr(scan, r) for label, r in made.items()} for name, scan in scans.items()
        },
        "finetuned": {
            str(steps): {
                name: {"psnr_db": refinements.psnr(scans[name], r)} | r.card | {"sha256": r.content_hash()}
                for name, r in row.items()
            }
            for steps, row in tuned.items()
        },
        "tv_psnr_db": {name: refinements.psnr(scan, None) for name, scan in scans.items()},
    }


def matrix(record: Record) -> str:
    """Table: mean PSNR of every refinement on every scan."""
    found = record["psnr_db"]
    rows = [
        [label, *(f"{np.mean(found[name][label]):.2f}" for name in found), f"{card['seconds']}"]
        for label, card in record["refinements"].items()
    ]
    for steps, tuned in record["finetuned"].items():
        means = [f"{np.mean(tuned[name]['psnr_db']):.2f}" if name in tuned else "" for name in found]
        seconds = max(card["seconds"] for card in tuned.values())
        rows.append([f"any scan, then {steps} steps on the scan", *means, f"+{seconds} each"])
    rows.append(["TV alone", *(f"{np.mean(record['tv_psnr_db'][name]):.2f}" for name in found), ""])
    return markdown_table(["trained for", *found, "s"], rows)


def gains(record: Record) -> list[str]:
    """Table: paired differences on the scans that have a specialist; none without specialists."""
    known = {name: row for name, row in record["psnr_db"].items() if name in record["refinements"]}
    if not known:
        return []
    headings = ["scan", "any scan minus its specialist", "minus the best other specialist", "others it beats"]
    rows = against_specialists(known, AMORTISED)
    for steps, tuned in reversed(record["finetuned"].items()):
        headings.insert(2, f"fine-tuned for {steps} steps, minus its specialist")
        for row in rows:
            name = row[0]
            row.insert(2, signed_interval(paired_difference(tuned[name]["psnr_db"], known[name][name])))
    return [markdown_table(headings, rows)]


def markdown(record: Record) -> str:
    """Both tables and what they are about."""
    slices = len(next(iter(record["psnr_db"].values()))[AMORTISED])
    return "\n\n".join([
        "# One refinement for any scan against specialists",
        "PSNR (dB) of the refined reconstruction. Rows: the scan that a refinement was trained for.",
        matrix(record),
        *gains(record),
        f"Each table of a training holds {record['protocol']['references']} TV reconstructions of 40 iterations. "
        f"{footnote(record, slices)}",
    ]) + "\n"  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = experiment_parser(__doc__)
    add_study_arguments(parser, steps=2000, learning_rate=LEARNING_RATE)
    parser.set_defaults(momentum=MOMENTUM)
    parser.add_argument("--scans", nargs="+", default=NAMED_SCANS, help="scans that are named in training and measured")
    parser.add_argument("--specialists", nargs="*", help="scans that get a specialist; default: all")
    parser.add_argument("--norm-groups", type=int, default=SETTINGS.network.norm_groups)
    parser.add_argument("--scale-shift", action=argparse.BooleanOptionalAction, default=SETTINGS.network.scale_shift)
    parser.add_argument("--batches", type=int, default=SETTINGS.batches, help="batches in the table of each refinement")
    parser.add_argument("--finetune", type=int, nargs="*", default=(), help="numbers of fine-tuning steps")
    arguments = parser.parse_args(argv)
    record = run(arguments)
    write_result(arguments.out, "specialist_refinements", record, markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
