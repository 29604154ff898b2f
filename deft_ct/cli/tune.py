"""``deft-ct tune``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.ct.scan import Scan
from deft_ct.evaluation.tuning import Budget, Search
from deft_ct.evaluation.tuning import tune as run_tuning
from deft_ct.problems.ct import CTProblem


def tune(
    method: Annotated[str, typer.Argument(help="Method; options given as 'dps:steps=100' are fixed.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the study and the preset; run again to go on.")],
    data: opt.Data = "val",
    every: opt.Every = 10,
    scan: Annotated[str, typer.Option(help="Scan, e.g. parallel60_1e5, parallel60_1e5_120deg.")] = "parallel60_1e5",
    trials: Annotated[int, typer.Option(help="Trials in all, those of earlier runs included.", min=1)] = 30,
    objective: Annotated[str, typer.Option(help="psnr, or rmse (HU, in the body).")] = "psnr",
    samples: opt.Samples = 1,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 8,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    model: opt.ModelNames = None,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
) -> None:
    """Search the parameters of a method on validation slices and write them as a preset, OUT/METHOD.json.

    Test packs are refused. Needs the extra `tune` (Optuna).
    """
    with one_line_errors(interrupted="finished trials are kept; run the same command again to go on"):
        console = Console()
        name, fixed = opt.parse_method(method)
        networks = opt.Networks(prior=prior, htransform=htransform, models=opt.parse_models(model), device=device,
            precision=opt.parse_precision(precision),
        )  # fmt: skip
        builder = opt.Builder(networks)
        builder.build(name, fixed)  # bad names and missing networks fail before any work

        problem = CTProblem(
            opt.read_pack(data, every), Scan.from_name(scan), seed=seed, batch_size=batch_size, device=device
        )
        preset = run_tuning(
            Search(method=name, fixed=fixed), builder.build, problem, out,
            Budget(trials=trials, objective=objective, samples=samples),
            log=partial(console.print, markup=False, highlight=False),
        )  # fmt: skip
        found, default = preset.provenance["best_value"], preset.provenance["default_value"]
        console.print(f"best {objective} {found:.3f} (defaults: {default:.3f}): {escape(str(preset.options))}")
        console.print(f"written to [bold]{escape(str(out / f'{name}.json'))}[/]", soft_wrap=True)
