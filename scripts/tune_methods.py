"""Tune many methods on several scans, in order: run again to go on; see `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.compare import DEFAULT_SCANS
from deft_ct.cli.errors import one_line_errors
from deft_ct.ct.scan import Scan
from deft_ct.evaluation.tuning import Budget, Search, seconds_per_trial, sweep
from deft_ct.problems.ct import CT_STEPS, CTProblem


def main(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of studies and presets; run again to go on.")],
    data: opt.Data = "val",
    every: opt.Every = 32,
    scans: Annotated[list[str] | None, typer.Option("--scan", help="Scan by name. Repeat for several.")] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="Method with fixed options, e.g. 'dps:steps=200'. Default: all on a CPU budget."),
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials for each method and scan.", min=1)] = 12,
    objective: Annotated[str, typer.Option(help="psnr, or rmse (HU, in the body).")] = "psnr",
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 8,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    model: opt.ModelNames = None,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
    threads: Annotated[int | None, typer.Option(help="Threads of PyTorch.", min=1)] = None,
    max_minutes: Annotated[float | None, typer.Option(help="No trial begins after this time.", min=0)] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it would cost, and stop.")] = False,
) -> None:
    """Write OUT/presets/SCAN/METHOD.json for every method and scan, and keep the studies in OUT/studies.

    Options of a method that are given are fixed; a method without options takes those of the CPU budget. Methods whose
    networks are not at hand are an error: choose with --method.
    """
    with one_line_errors(interrupted="finished trials are kept; run the same command again to go on"):
        console = Console()
        if threads is not None:
            torch.set_num_threads(threads)
        chosen = []
        for text in methods or CT_STEPS:
            name, fixed = opt.parse_method(text)
            chosen.append(Search(method=name, fixed=fixed or CT_STEPS.get(name, {})))
        builder = opt.Builder(
            opt.Networks(
                prior=prior, htransform=htransform, models=opt.parse_models(model), device=device,
                precision=opt.parse_precision(precision),
            )
        )  # fmt: skip
        pack = opt.read_pack(data, every)
        problems = [
            CTProblem(pack, Scan.from_name(name), seed=seed, batch_size=batch_size, device=device)
            for name in dict.fromkeys(scans or DEFAULT_SCANS)
        ]
        budget = Budget(trials=trials, objective=objective, samples=samples)
        costs = seconds_per_trial(chosen, builder.build, problems[0], budget)
        for name, cost in costs.items():
            console.print(f"{name}: about {cost:.1f} s a trial of {len(pack)} slices", highlight=False)
        total = sum(costs.values()) * trials * len(problems)
        console.print(
            f"all: at most {total / 60:.0f} min for {trials} trials on {len(problems)} scans", highlight=False
        )
        if estimate:
            return
        presets = sweep(
            chosen, builder.build, problems, out, budget,
            seconds=None if max_minutes is None else 60 * max_minutes,
            log=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
        )  # fmt: skip
        for preset in presets:
            found, default = preset.provenance["best_value"], preset.provenance["default_value"]
            line = f"{preset.scan} {preset.method}: {objective} {found:.3f} (defaults {default:.3f}): {preset.options}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(f"written to [bold]{escape(str(out / 'presets'))}[/]", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
