"""``deft-ct compare``: a benchmark whose suite is written as options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.datasets.photographs import is_photographs
from deft_ct.evaluation.comparison import Comparison
from deft_ct.reconstructor import USUAL_SAMPLES
from deft_ct.report.figures import footer_of
from deft_ct.workflows.benchmark import SuiteRun, refuse_failures, run_suite
from deft_ct.workflows.suite import Suite

RESUME = "finished measurements are kept; run the same command again to resume"


def compare(
    out: opt.Out,
    data: opt.Data = "val",
    every: opt.Every = 10,
    limit: opt.Limit = None,
    scans: opt.Scans = None,
    operator: opt.OperatorName = None,
    methods: opt.Methods = None,
    samples: opt.Samples = None,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 8,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    model: opt.ModelNames = None,
    presets: opt.Presets = True,
    preset_folder: Annotated[
        Path | None,
        typer.Option(help="Folder of presets that override the shipped ones: OUT/presets of `deft-ct tune`."),
    ] = None,
    pictures: opt.Pictures = False,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
    overwrite: opt.Overwrite = False,
    progress: opt.Progress = True,
) -> None:
    """Compare methods on scans: quality, time and memory.

    Example: `deft-ct compare --data folder:FOLDER --scan parallel60_1e5 --method tv --method deft --out OUT`

    The short form of `deft-ct benchmark`. Without --scan, three common scans are used, or the data's own measurements.
    Without --method, all methods run that apply to CT and whose networks are available. Methods that train for each
    slice run only if they are named. The tables have 95 % intervals and the number of network evaluations. Writes
    summary.md, benchmark.html, comparison.json and results.parquet. Results are kept in OUT: run the same command again
    to resume. Several processes may share OUT. Photographs (--data photos:FOLDER) take tasks instead of scans:
    --operator sr4+inpaint_box.
    """
    with one_line_errors(interrupted=RESUME):
        if operator is not None and not is_photographs(data):
            raise ValueError("--operator is for photographs (--data photos:...): slices take a --scan")
        suite = Suite(
            data=(data,),
            scans=None if scans is None else tuple(dict.fromkeys(scans)),
            tasks=None if operator is None else tuple(operator.split("+")),
            methods=None if methods is None else tuple(dict.fromkeys(methods)),
            seeds=(seed,), every=every, limit=limit, samples=USUAL_SAMPLES if samples is None else samples,
            batch_size=batch_size,
            device=device, precision=precision, prior=prior, htransform=htransform,
            models=opt.parse_models(model), presets=presets,
            preset_folder=None if preset_folder is None else str(preset_folder), pictures=pictures, name="compare",
        )  # fmt: skip
        console = Console()
        comparison, failed = run_suite(
            suite, out, SuiteRun(overwrite=overwrite, progress=progress, say=printer(console))
        )  # fmt: skip
        print_tables(console, comparison, out)
        refuse_failures(failed, out)


def printer(console: Console) -> Callable[[str], None]:
    """Prints a line on what is being done."""
    return lambda line: console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)


def print_tables(console: Console, comparison: Comparison, out: Path) -> None:
    """Print the tables of a benchmark."""
    for table in comparison.rich_tables():
        console.print(table)
    console.print(Text(comparison.conventions()), soft_wrap=True)
    console.print(f"written to [bold]{escape(str(out))}[/]", soft_wrap=True)
    console.print(f"[bold]{footer_of(comparison.problems[0].group_noun)}.[/]")
