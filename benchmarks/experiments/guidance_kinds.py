"""Kinds of guidance for h-transforms of the shipped form (initial reconstruction: TV), on real CT at 128 x 128.

A network for each kind is trained at equal cost on the same slices, noise and order, and measured on the same data. A
second table shows the guidance alone: the error of the prior's estimate plus the best multiple of the guidance.

Run: python benchmarks/experiments/halved.py --out runs/halved
     python benchmarks/experiments/guidance_kinds.py --work runs/halved --out benchmarks/results    (again to resume)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deft_ct.ct.scan import Scan
from deft_ct.datasets.halved import halved_scan
from deft_ct.evaluation.paired import paired_difference, signed_interval
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import HTransform
from deft_ct.runtime.seeds import generator_for, normal_like
from deft_ct.workflows.experiments.arguments import experiment_parser
from deft_ct.workflows.experiments.measures import psnr_values
from deft_ct.workflows.experiments.study import Study, StudySettings, add_study_arguments, footnote

KINDS = ("fbp", "adjoint", "cg", "split")
BASE = "fbp"
TIMES = (60, 300, 700)
SPAN = PriorRange()
ESTIMATES = {"direct_mean": "direct mean", "single": "one sample", "mean": "mean of samples"}


def run(arguments: argparse.Namespace) -> Record:
    """Train what is missing and measure every kind."""
    study = Study(StudySettings.from_arguments(arguments, samples=arguments.samples), log=print)
    scan = halved_scan(arguments.scan)
    htransforms = {kind: study.train_for_scan(scan, kind) for kind in arguments.kinds}
    rows: Record = {}
    for kind, htransform in htransforms.items():
        rows[kind] = {
            "seconds": htransform.card["seconds"], "sha256": htransform.content_hash(),
            "config": htransform.config.to_dict(),
            "direct": study.measure(htransform, scan, estimate="mean", draws=2),
            "sampled": study.measure(htransform, scan, estimate="samples", steps=20),
        }  # fmt: skip
        print(f"{kind}: direct mean {rows[kind]['direct']['direct_mean']['psnr_db']['mean']:.2f} dB", flush=True)
    return {
        "protocol": study.protocol(), "scan": scan.name, "rows": rows, "reference": study.measure_initial(scan),
        "worth_hu": guided_errors(study, htransforms, scan),
    }  # fmt: skip


@torch.no_grad()
def guided_errors(study: Study, htransforms: Mapping[str, HTransform], scan: Scan) -> Record:
    """RMS error (HU) of the prior's estimate, and of it plus the best multiple of each guidance, at some times."""
    problem, prior = study.problem(scan), study.prior
    truth = torch.from_numpy(problem.truth)[:, None].split([len(names) for _, _, names in problem.batches])
    out: Record = {}
    for t in TIMES:
        errors: list[Tensor] = []
        guidance: dict[str, list[Tensor]] = {kind: [] for kind in htransforms}
        for hu, (y, measurement, names) in zip(truth, problem.batches, strict=True):
            x0 = SPAN.to_prior(hu)
            times = torch.full((len(y),), t)
            noise = normal_like(x0, [generator_for(study.training.seed, "worth", name, t) for name in names])
            x0h, _ = prior.predict(prior.schedule.add_noise(x0, noise, times), times)
            errors.append(x0 - x0h)
            likelihood = measurement.likelihood(y, SPAN)
            for kind, htransform in htransforms.items():
                guidance[kind].append(htransform.guidance_at(likelihood, x0h, times))
        error = torch.cat(errors)
        out[str(t)] = {"without": rms_hu(error)}
        for kind, found in guidance.items():
            added = torch.cat(found)
            out[str(t)][kind] = rms_hu(error - (added * error).sum() / added.square().sum() * added)
    return out


def rms_hu(error: Tensor) -> float:
    """RMS in HU of values in the prior's range."""
    return float(error.square().mean().sqrt() * SPAN.scale)


def psnrs(row: Record, estimate: str) -> list[float]:
    """PSNR of every slice for a key of :data:`ESTIMATES`."""
    return psnr_values(row["direct" if estimate == "direct_mean" else "sampled"], estimate)


def markdown(record: Record) -> str:
    """PSNR by kind with the paired differences to the base, and the errors of the guidance alone."""
    rows, samples = record["rows"], record["protocol"]["samples"]
    quality = []
    for kind, row in rows.items():
        cells = [kind]
        for estimate in ESTIMATES:
            value = f"{mean_interval(psnrs(row, estimate)).mean:.2f}"
            gain = signed_interval(paired_difference(psnrs(row, estimate), psnrs(rows[BASE], estimate)))
            cells.append(value if kind == BASE else f"{value}, {gain}")
        quality.append([*cells, f"{row['sampled']['seconds_per_slice'] / samples:.2f}", str(row["seconds"])])
    names = list(next(iter(record["worth_hu"].values())))
    errors = [[f"t = {t}", *(f"{row[name]:.1f}" for name in names)] for t, row in record["worth_hu"].items()]
    return "\n\n".join([
        "# Kinds of guidance",
        f"PSNR in dB; after the comma the paired difference to {BASE}.",
        markdown_table(["guidance", *ESTIMATES.values(), "a sample (s)", "training (s)"], quality),
        "RMS error (HU) of the prior's estimate plus the best multiple of the guidance:",
        markdown_table(["time", *names], errors),
        f"Scan {record['scan']}; TV alone {record['reference']['psnr_db']['mean']:.2f} dB; mean of {samples} samples, "
        f"20 evaluations each. {footnote(record, len(psnrs(rows[BASE], 'single')))}",
    ]) + "\n"  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = experiment_parser(__doc__)
    add_study_arguments(parser, steps=800)
    parser.add_argument("--scan", default="parallel60_1e5")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args(argv)
    record = run(arguments)
    write_result(arguments.out, "guidance_kinds", record, markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
