"""``deft-ct benchmark``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.evaluation.problem import score, score_json
from deft_ct.problems.ct import CTProblem
from deft_ct.problems.ct_metrics import evaluate
from deft_ct.report import FOOTER, Row, metrics_table
from deft_ct.runtime.atomic import atomic_file


def benchmark(
    data: opt.Data = "val",
    every: opt.Every = 10,
    methods: opt.Methods = None,
    views: opt.Views = 60,
    geometry: opt.Geometry = "parallel",
    degrees: opt.Degrees = None,
    photons: opt.Photons = 1e5,
    samples: opt.Samples = 4,
    seed: opt.Seed = 0,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    model: opt.ModelNames = None,
    presets: opt.Presets = True,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
    out: Annotated[Path | None, typer.Option(help="JSON file for the values of every slice.")] = None,
) -> None:
    """Measure methods on a pack of slices: one simulated scan, one noise draw, the same metrics for all.

    `deft-ct compare` does this for several scans, with intervals and costs, and resumes.
    """
    with one_line_errors():
        scan = opt.scan_of(views, geometry, degrees, photons)
        console = Console()
        networks = opt.Networks(prior=prior, htransform=htransform, models=opt.parse_models(model), device=device,
            precision=opt.parse_precision(precision),
        )  # fmt: skip
        builder = opt.Builder(networks)
        solvers = {}
        for text in methods or ["fbp", "tv", "deft"]:
            solvers[text], preset = builder.for_scan(text, scan, presets=presets)
            if preset is not None:
                console.print(f"[dim]{escape(text)}: preset {preset}[/]")
        pack = opt.read_pack(data, every)
        problem = CTProblem(pack, scan, seed=seed, device=device)
        scores = [score(label, solver, problem, samples=samples, progress=True) for label, solver in solvers.items()]
        rows = [
            Row(
                method=s.label, metrics=evaluate(s.estimate, problem.truth, body=problem.body),
                seconds_per_slice=s.seconds_per_image,
            )
            for s in scores
        ]  # fmt: skip
        title = f"{pack.path.name}, every {every}: {scan}; {samples} samples, seed {seed}"
        console.print(metrics_table(rows, title=title))
        console.print(f"{FOOTER}.")
        if out is not None:
            record = {
                **problem.settings(), "scan": problem.describe_measurement(), "samples": samples,
                "methods": {s.label: score_json(s) for s in scores},
            }  # fmt: skip
            with atomic_file(out) as part:
                part.write_text(json.dumps(record, indent=1) + "\n")
