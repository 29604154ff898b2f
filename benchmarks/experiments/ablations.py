"""Which inputs the h-transform network needs: the ablations of the paper (arXiv 2406.01781, appendix F.1), on real CT.

Networks of the paper's form, without an initial reconstruction, are trained at equal cost on the same slices (128 x
128), noise and order. Their posteriors are sampled for the same data. ``A* y`` replaces the residual by the filtered
back-projection of the data, without the learned factor ``NN2(t)``, as in the paper. One variant goes beyond the paper:
its guidance comes from conjugate gradients. The networks have the shape of the prior and start from its weights. With
``--small`` they are small and start from random weights, as in the paper.

Run: python benchmarks/experiments/halved.py --out runs/halved
     python benchmarks/experiments/ablations.py --work runs/halved --out benchmarks/results    (again to resume)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deft_ct.datasets.halved import halved_scan
from deft_ct.evaluation.paired import paired_difference, signed_interval
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.deft import HTransform, HTransformConfig
from deft_ct.workflows.experiments.arguments import experiment_parser
from deft_ct.workflows.experiments.measures import psnr_values
from deft_ct.workflows.experiments.study import HTransformTask, Study, StudySettings, add_study_arguments, footnote

DATA_GUIDANCE = {"guidance": "data", "time_scaling": False, "guidance_scale": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "conjugate gradients for g": {"guidance": "cg"},
    "without x0h": {"use_tweedie": False},
    "A* y": DATA_GUIDANCE,
    "A* y, without x0h": {**DATA_GUIDANCE, "use_tweedie": False},
}
PAPER = {"full": 35.81, "without x0h": 35.74, "A* y": 34.04, "A* y, without x0h": 26.62}
"""PSNR (dB) in Table 6 of the paper. Its data, scan, prior and networks differ, so only the order can be compared."""
SMALL = (32, 32, 64)
"""Channels of the small networks."""
SAMPLERS: dict[str, dict[str, Any]] = {
    "50 DDIM": {"estimate": "samples", "sampler": "ddim", "grid": "uniform", "eta": 1.0, "steps": 50},
    "20 DPM": {"estimate": "samples", "steps": 20},
}
NOTES = {
    "50 DDIM": "50 steps of DDIM, eta 1, uniform grid (the sampler of the paper, which takes 100)",
    "20 DPM": "20 steps of DPM-Solver++, eta 1, log-SNR grid (the default)",
}


def run(arguments: argparse.Namespace) -> Record:
    """Train what is missing and measure every variant."""
    study = Study(StudySettings.from_arguments(arguments), log=print)
    scan = halved_scan(arguments.scan)
    network = replace(study.network(), channels=SMALL) if arguments.small else study.network()
    rows: dict[str, Record] = {}
    for name in dict.fromkeys(("full", *arguments.heads)):
        config = HTransformConfig(reference="none", network=network, **{"guidance": "fbp", **VARIANTS[name]})
        task = HTransformTask(
            config=config, measurements=[study.measurement(scan)], card={"of": scan.name},
            from_prior=not arguments.small,
        )  # fmt: skip
        htransform = study.train(f"ablation {name}", task)
        rows[name] = row_of(htransform)
        for label in arguments.samplers:
            rows[name][label] = study.measure(htransform, scan, **SAMPLERS[label])
            print(name, label, f"{rows[name][label]['mean']['psnr_db']['mean']:.2f} dB", flush=True)
    return {
        "protocol": study.protocol(), "scan": scan.name, "rows": rows, "paper_db": PAPER, "small": arguments.small,
        "prior_parameters": sum(p.numel() for p in study.prior.network.parameters()),
    }  # fmt: skip


def row_of(htransform: HTransform) -> Record:
    """Training cost, hash, configuration and size of a network."""
    return {
        "seconds": htransform.card["seconds"], "sha256": htransform.content_hash(),
        "config": htransform.config.to_dict(), "parameters": sum(p.numel() for p in htransform.parameters()),
    }  # fmt: skip


def markdown(record: Record) -> str:
    """A table for each sampler."""
    rows, count = record["rows"], record["protocol"]["samples"]
    headings = ["network", "one sample", "minus full", f"mean of {count}", "minus full", "paper", "training (s)"]
    parts, slices = ["# Ablations of the paper's h-transform network"], 0
    for label in (label for label in SAMPLERS if label in rows["full"]):
        body = []
        for name, row in rows.items():
            cells, slices = [name], len(psnr_values(row[label], "single"))
            for estimate in ("single", "mean"):
                found, full = psnr_values(row[label], estimate), psnr_values(rows["full"][label], estimate)
                cells.append(f"{mean_interval(found).mean:.2f}")
                cells.append("" if name == "full" else signed_interval(paired_difference(found, full)))
            body.append([*cells, str(record["paper_db"].get(name, "-")), str(row["seconds"])])
        parts += [f"{NOTES[label]}; PSNR in dB.", markdown_table(headings, body)]
    start = "small, from random weights" if record["small"] else "of the shape of the prior, from its weights"
    parts.append(
        f"Networks: {start} (full: {rows['full']['parameters']:,} parameters, prior: {record['prior_parameters']:,}). "
        f"Scan {record['scan']}. The column of the paper is its Table 6 (other data and networks): only the order can "
        f"be compared. {footnote(record, slices)}"
    )
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = experiment_parser(__doc__)
    add_study_arguments(parser, steps=1000)
    parser.add_argument("--scan", default="parallel60_1e5")
    parser.add_argument("--samplers", nargs="+", choices=tuple(SAMPLERS), default=tuple(SAMPLERS))
    parser.add_argument("--heads", nargs="+", choices=tuple(VARIANTS), default=tuple(VARIANTS), help="besides full")
    parser.add_argument("--small", action="store_true", help="small networks from random weights")
    arguments = parser.parse_args(argv)
    record = run(arguments)
    name = "ablations_small" if arguments.small else "ablations"
    text = markdown(record)
    write_result(arguments.out, name if arguments.seed == 0 else f"{name}_seed{arguments.seed}", record, text)
    print(text)


if __name__ == "__main__":
    main()
