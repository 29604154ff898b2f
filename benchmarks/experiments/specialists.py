"""One h-transform for any scan against a specialist for each scan, at equal training cost, on real CT at 128 x 128.

Every network has the shipped form and is trained for the same number of steps from the weights of the prior. The one
for any scan spends half of them on the named scans and half on random scans, as ``deft-ct train htransform --any-scan``
does; a specialist spends all of them on its scan. Each is then measured on every scan. All start from the TV
reconstruction that the refinement for any scan has improved (see ``specialist_refinements.py``); with ``--bare`` they
start from TV alone.

Run: python benchmarks/experiments/halved.py --out runs/halved
     python benchmarks/experiments/specialists.py --work runs/halved --out benchmarks/results    (again to resume)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from deft_ct.ct.scan import Scan
from deft_ct.datasets.halved import halved_scan
from deft_ct.evaluation.paired import paired_difference, signed_interval
from deft_ct.evaluation.specialists import against_specialists
from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.deft import HTransform, HTransformConfig
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES
from deft_ct.methods.deft.refinement import Refinement
from deft_ct.workflows.experiments.arguments import experiment_parser
from deft_ct.workflows.experiments.measures import psnr_values
from deft_ct.workflows.experiments.refinements import (
    AMORTISED,
    NAMED_SCANS,
    RefinementSettings,
    RefinementStudy,
    TrainedRefinement,
    refinement_training,
)
from deft_ct.workflows.experiments.study import (
    HTransformTask,
    Study,
    StudySettings,
    add_study_arguments,
    footnote,
    initial_error,
)

STEPS = 800
SETTINGS = RefinementSettings()


def htransforms(study: Study, scans: Mapping[str, Scan], arguments: argparse.Namespace) -> dict[str, HTransform]:
    """The network for any scan and the specialists, each trained on the slices and data of its refinement."""
    training = refinement_training(study.training, arguments.refinement_steps)
    refinement_study = Study(replace(study.settings, training=training), log=print)
    refinements = RefinementStudy(refinement_study, replace(SETTINGS, batches=arguments.batches))
    any_scan = refinements.for_any_scan(list(scans.values()))
    chosen = arguments.scans if arguments.specialists is None else arguments.specialists
    sources = {AMORTISED: any_scan} | {name: refinements.for_scan(scans[name]) for name in chosen}
    shared = None if arguments.bare else any_scan.refinement
    return {label: study.train(label, task(study, label, source, shared)) for label, source in sources.items()}


def task(study: Study, label: str, source: TrainedRefinement, shared: Refinement | None) -> HTransformTask:
    """The training of one network on the data of ``source``, around the shared refinement if there is one."""
    pairs = source.pairs
    conditioned = shared is not None or label == AMORTISED
    if shared is not None:
        error = shared.typical_error
    else:
        error = 0.0 if conditioned else initial_error(pairs.measurements[0])
    config = HTransformConfig(
        spread=error, scan_features=conditioned, spread_slopes=SPREAD_SLOPES if conditioned else (),
        tv_iterations=SETTINGS.tv_iterations, refinement=None if shared is None else shared.config,
        network=study.network(),
    )  # fmt: skip
    return HTransformTask(
        config=config, measurements=pairs.measurements, card={"of": label}, refinement=shared,
        weights=None if pairs.weights is None else pairs.weights.tolist(), references=source.references,
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> Record:
    """Train what is missing and measure every network on every scan."""
    study = Study(StudySettings.from_arguments(arguments, samples=1), log=print)
    scans = {name: halved_scan(name) for name in arguments.scans}
    trained = htransforms(study, scans, arguments)
    cells: Record = {
        name: {label: study.measure(htransform, scan, estimate="mean") for label, htransform in trained.items()}
        for name, scan in scans.items()
    }
    samples = {
        name: {label: study.measure(trained[label], scans[name], estimate="samples") for label in (AMORTISED, name)}
        for name in trained
        if name != AMORTISED
    }
    return {
        "protocol": study.protocol(), "bare": arguments.bare,
        "reference": {name: study.measure_initial(scan, trained[AMORTISED]) for name, scan in scans.items()},
        "heads": {
            label: {"seconds": found.card["seconds"], "sha256": found.content_hash(), "config": found.config.to_dict()}
            for label, found in trained.items()
        },
        "direct_mean": cells, "single": samples,
    }  # fmt: skip


def markdown(record: Record) -> str:
    """Mean PSNR of all networks on all scans, and the paired differences."""
    found = {
        name: {label: psnr_values(cell, "direct_mean") for label, cell in row.items()}
        for name, row in record["direct_mean"].items()
    }
    base = "TV alone" if record["bare"] else "TV with the refinement for any scan"
    rows = [
        [label, *(f"{np.mean(found[name][label]):.2f}" for name in found), str(row["seconds"])]
        for label, row in record["heads"].items()
    ]
    rows.append([base, *(f"{record['reference'][name]['psnr_db']['mean']:.2f}" for name in found), ""])
    gains = against_specialists({name: found[name] for name in found if name in record["heads"]}, AMORTISED)
    for row in gains:
        single = {label: psnr_values(cell, "single") for label, cell in record["single"][row[0]].items()}
        row.insert(2, signed_interval(paired_difference(single[AMORTISED], single[row[0]])))
    headings = ["scan", "any scan minus its specialist", "of one sample", "minus the best other specialist"]
    return "\n\n".join([
        "# One h-transform for any scan against specialists",
        f"PSNR (dB) of the direct mean. Rows: the scan that a network was trained for. All start from {base}.",
        markdown_table(["trained for", *found, "s"], rows),
        markdown_table([*headings, "others it beats"], gains),
        footnote(record, len(next(iter(found.values()))[AMORTISED])),
    ]) + "\n"  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = experiment_parser(__doc__)
    add_study_arguments(parser, steps=STEPS)
    parser.add_argument("--scans", nargs="+", default=NAMED_SCANS)
    parser.add_argument("--specialists", nargs="*", help="scans that get a specialist; default: all")
    parser.add_argument("--bare", action="store_true", help="start from TV alone, without the refinement")
    parser.add_argument("--refinement-steps", type=int, default=2000, help="training steps of each refinement")
    parser.add_argument("--batches", type=int, default=SETTINGS.batches, help="batches in the table of each training")
    arguments = parser.parse_args(argv)
    record = run(arguments)
    name = "specialists_bare" if arguments.bare else "specialists"
    name = name if arguments.steps == STEPS else f"{name}_{arguments.steps}"
    write_result(arguments.out, name, record, markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
