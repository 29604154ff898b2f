"""``deft-ct tune``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.datasets.photographs import is_photographs
from deft_ct.evaluation.problem import Problem
from deft_ct.evaluation.tuning import Budget, Build, Search, seconds_per_trial, sweep
from deft_ct.methods.method_text import parse_methods
from deft_ct.methods.registry import NetworkChoice
from deft_ct.problems.by_name import DEFAULT_SCANS, ProblemOptions
from deft_ct.problems.ct import CT_STEPS, CTProblem
from deft_ct.problems.natural_data import NATURAL_RANGES, NATURAL_STEPS, natural_problems
from deft_ct.runtime.atomic import occupy_folder
from deft_ct.workflows.natural_networks import NaturalNetworks


def tune_command(
    out: opt.Out,
    methods: Annotated[
        list[str] | None,
        typer.Argument(metavar="METHOD", help="Methods. Options in 'dps:steps=100' are fixed and not searched."),
    ] = None,
    data: opt.Data = "val",
    every: opt.Every = 10,
    scans: opt.Scans = None,
    operator: opt.OperatorName = None,
    trials: Annotated[
        int, typer.Option(help="Trials for each method and scan, with the trials of earlier runs.", min=1)
    ] = 30,
    objective: Annotated[
        Literal["psnr", "rmse"],
        typer.Option(help="psnr of the whole image in dB, or rmse; of slices inside the body in HU."),
    ] = "psnr",
    samples: opt.Samples = None,
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
    """Search the parameters of methods, and write presets.

    Example: `deft-ct tune dds diffpir --data val --every 32 --trials 12 --scan parallel60_1e5 --out OUT`

    Uses validation slices. Writes OUT/presets/SCAN/METHOD.json and keeps the trials in OUT/studies: run the same
    command again to resume. Without METHOD, all methods for CT are tuned with step counts that suit a CPU. Without
    --scan, three common scans are used. With --data photos:... name tasks instead: --operator sr4+inpaint_box; of a
    file of crops the training part is used. Test data are refused. Needs the extra `tune` (Optuna).
    """
    resume = "finished trials are kept; run the same command again to resume"
    with one_line_errors(interrupted=resume), occupy_folder(out):
        console = Console(soft_wrap=True, highlight=False, markup=False)
        photos = is_photographs(data)
        known, ranges = (NATURAL_STEPS, NATURAL_RANGES) if photos else (CT_STEPS, {})
        chosen = parse_methods(methods) if methods else dict(known)
        searches = [Search(method=name, fixed=fixed, ranges=ranges.get(name, {})) for name, fixed in chosen.items()]
        for search in searches:
            search.check()
        budget = Budget(
            trials=trials, objective=objective, samples=1 if samples is None else samples, overwrite=overwrite
        )
        choice = NetworkChoice(
            prior=prior, htransform=htransform, models=opt.parse_models(model), device=device, precision=precision
        )
        options = ProblemOptions(every=every, seed=seed, batch_size=batch_size, device=device)
        if photos:
            work = _on_photographs(data, operator, scans, options, choice, searches)
        else:
            work = _on_scans(data, operator, scans, options, choice)
        if estimate:
            build, problems = work[0]
            count = sum(len(some) for _, some in work)
            costs = seconds_per_trial(searches, build, problems[0], budget)
            for name, cost in costs.items():
                console.print(f"{name}: about {cost:.1f} s a trial of {len(problems[0])} images")
            total = sum(costs.values()) * trials * count
            what = "tasks" if photos else "scans"
            console.print(f"all: at most {total / 60:.0f} min for {trials} trials on {count} {what}")
            return
        until = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        presets = [
            preset
            for build, some in work
            for preset in sweep(
                searches, build, some, out, budget, log=console.print,
                seconds=None if until is None else until - time.monotonic(),
            )
        ]  # fmt: skip
        for preset in presets:
            found, default = preset.provenance["best_value"], preset.provenance["default_value"]
            console.print(
                f"{preset.scan} {preset.method}: {objective} {found:.3f} (defaults: {default:.3f}): {preset.options}"
            )
        console.print(f"written to [bold]{escape(str(out / 'presets'))}[/]", markup=True)


Work = list[tuple[Build, Sequence[Problem]]]
"""What builds the methods, and the problems that they are tuned on."""


def _on_photographs(
    data: str, operator: str | None, scans: list[str] | None, options: ProblemOptions, choice: NetworkChoice,
    searches: Sequence[Search],
) -> Work:  # fmt: skip
    if scans or operator is None:
        raise ValueError("photographs are tuned for a task: name it with --operator, and leave out --scan")
    tasks = natural_problems(data, operator.split("+"), options, split="train")
    networks = NaturalNetworks(choice)
    for search in searches:
        networks.check(search.method)
    return [(networks.for_task(task.name).build, [task]) for task in tasks]


def _on_scans(
    data: str, operator: str | None, scans: list[str] | None, options: ProblemOptions, choice: NetworkChoice
) -> Work:
    if operator is not None:
        raise ValueError("--operator is for photographs (--data photos:...): slices are tuned for a --scan")
    wanted = [Scan.from_name(name) for name in dict.fromkeys(scans or DEFAULT_SCANS)]
    networks = choice.networks()
    pack = read_pack(data, options.every)
    networks.load_named()
    problems = [
        CTProblem(pack, scan, seed=options.seed, batch_size=options.batch_size, device=options.device)
        for scan in wanted
    ]  # fmt: skip
    return [(networks.build, problems)]
