"""``deft-ct tune``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.tuning import Budget, Search, seconds_per_trial, sweep
from deft_ct.methods.method_text import parse_method
from deft_ct.methods.registry import Networks
from deft_ct.problems.by_name import DEFAULT_SCANS
from deft_ct.problems.ct import CT_STEPS, CTProblem
from deft_ct.runtime.atomic import occupy_folder


def tune_command(
    out: opt.Out,
    methods: Annotated[
        list[str] | None,
        typer.Argument(metavar="METHOD", help="Methods. Options in 'dps:steps=100' are fixed and not searched."),
    ] = None,
    data: opt.Data = "val",
    every: opt.Every = 10,
    scans: opt.Scans = None,
    trials: Annotated[
        int, typer.Option(help="Trials for each method and scan, with the trials of earlier runs.", min=1)
    ] = 30,
    objective: Annotated[
        Literal["psnr", "rmse"], typer.Option(help="psnr of the whole slice in dB, or rmse inside the body in HU.")
    ] = "psnr",
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 8,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    model: opt.ModelNames = None,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
    max_minutes: opt.MaxMinutes = None,
    overwrite: opt.Overwrite = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Print the expected time and stop.")] = False,
) -> None:
    """Search the parameters of methods on validation slices and write them as presets.

    Writes OUT/presets/SCAN/METHOD.json and keeps the trials in OUT/studies: run the same command again to resume.
    Without METHOD, all methods for CT are tuned with step counts that suit a CPU. Without --scan, three common scans
    are used. Test data are refused. Needs the extra `tune` (Optuna).
    """
    resume = "finished trials are kept; run the same command again to resume"
    with one_line_errors(interrupted=resume), occupy_folder(out):
        console = Console(soft_wrap=True, highlight=False, markup=False)
        chosen = dict(parse_method(text) for text in methods) if methods else dict(CT_STEPS)
        wanted = [Scan.from_name(name) for name in dict.fromkeys(scans or DEFAULT_SCANS)]
        networks = Networks(
            prior=prior, htransform=htransform, models=opt.parse_models(model), device=device, precision=precision
        )
        searches = [Search(method=name, fixed=fixed) for name, fixed in chosen.items()]
        for search in searches:
            search.check()
        budget = Budget(trials=trials, objective=objective, samples=samples, overwrite=overwrite)
        pack = read_pack(data, every)
        networks.load_named()
        problems = [CTProblem(pack, scan, seed=seed, batch_size=batch_size, device=device) for scan in wanted]
        if estimate:
            costs = seconds_per_trial(searches, networks.build, problems[0], budget)
            for name, cost in costs.items():
                console.print(f"{name}: about {cost:.1f} s a trial of {len(pack)} slices")
            total = sum(costs.values()) * trials * len(wanted)
            console.print(f"all: at most {total / 60:.0f} min for {trials} trials on {len(wanted)} scans")
            return
        presets = sweep(
            searches, networks.build, problems, out, budget,
            seconds=None if max_minutes is None else 60 * max_minutes, log=console.print,
        )  # fmt: skip
        for preset in presets:
            found, default = preset.provenance["best_value"], preset.provenance["default_value"]
            console.print(
                f"{preset.scan} {preset.method}: {objective} {found:.3f} (defaults: {default:.3f}): {preset.options}"
            )
        console.print(f"written to [bold]{escape(str(out / 'presets'))}[/]", markup=True)
