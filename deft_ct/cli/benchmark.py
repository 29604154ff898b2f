"""``deft-ct benchmark``: run a suite, and what is made of its results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from deft_ct.cli import options as opt
from deft_ct.cli.benchmark_diff import benchmark_diff
from deft_ct.cli.commands import CheckedCommand
from deft_ct.cli.compare import RESUME, print_tables, printer
from deft_ct.cli.errors import one_line_errors
from deft_ct.evaluation.execution import Engine, Processes, RayCluster, Slurm
from deft_ct.methods.method_text import parse_options
from deft_ct.workflows.benchmark import SuiteRun, refuse_failures, run_suite
from deft_ct.workflows.benchopt_export import export_benchopt
from deft_ct.workflows.suite import read_suite

_RUN = "run"

SuiteName = Annotated[
    str, typer.Argument(metavar="SUITE", help="A YAML file, or the name of a shipped suite, for example ct256.")
]


class _RunByDefault(TyperGroup):
    """`deft-ct benchmark SUITE` is `deft-ct benchmark run SUITE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, [_RUN, *args] if args and args[0] not in known else args)


app = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True, rich_markup_mode="markdown",
    help="Run a benchmark: `deft-ct benchmark SUITE.yaml --out FOLDER`.",
)  # fmt: skip


@app.command(_RUN, cls=CheckedCommand)
def benchmark(
    suite: SuiteName,
    out: opt.Out,
    data: opt.Data = "",
    limit: opt.Limit = None,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    panels: opt.Panels = None,
    pictures: opt.Pictures = False,
    workers: Annotated[
        int, typer.Option(help="Processes, or jobs of --slurm, or processors of `--ray local`.", min=1)
    ] = 1,
    ray: opt.RayAddress = None,
    slurm: Annotated[
        str | None,
        typer.Option(metavar="KEY=VALUE,...", help="Run as Slurm jobs; the options of submitit, such as timeout_min."),
    ] = None,
    overwrite: opt.Overwrite = False,
    progress: opt.Progress = True,
) -> None:
    """Run a suite: data x scans x noise seeds x methods, or photographs x tasks x seeds x methods.

    Example: `deft-ct benchmark ct256 --limit 8 --out OUT`

    --data, --prior and --htransform take the place of those of the suite. Writes results.parquet with a row for each
    method and image, and the tables. Finished batches are kept in OUT: run the same command again to resume, or start
    it several times to share the work. A method that fails has rows with the reason; the others go on, and the exit
    status is 2.
    """
    with one_line_errors(interrupted=RESUME):
        given = {
            "data": data or None, "limit": limit, "prior": prior, "htransform": htransform, "panels": panels,
            "pictures": pictures or None,
        }  # fmt: skip
        chosen = read_suite(suite, overrides={name: value for name, value in given.items() if value is not None})
        gpus = 1.0 if chosen.device.startswith("cuda") else 0.0
        console = Console()
        how = SuiteRun(
            overwrite=overwrite, progress=progress, say=printer(console), engine=_engine(out, workers, ray, slurm, gpus)
        )
        comparison, failed = run_suite(chosen, out, how)
        print_tables(console, comparison, out)
        refuse_failures(failed, out)


@app.command("export", cls=CheckedCommand)
def benchmark_export(
    benchopt: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for a benchmark of benchopt that runs the suite.")
    ],
    suite: SuiteName = "ct256",
    overwrite: opt.Overwrite = False,
) -> None:
    """Write a suite as a benchmark of [benchopt](https://benchopt.github.io): objective, data sets and solvers.

    Example: `deft-ct benchmark export ct256 --benchopt FOLDER`
    """
    with one_line_errors():
        export_benchopt(read_suite(suite), benchopt, overwrite=overwrite)
        Console().print(f"written to [bold]{benchopt}[/]: run it with `benchopt run {benchopt}`", soft_wrap=True)


app.command("diff", cls=CheckedCommand)(benchmark_diff)


def _engine(out: Path, workers: int, ray: str | None, slurm: str | None, gpus: float) -> Engine | None:
    """Where the work is done; None for this process.

    Raises:
        ValueError: two places are named.
    """
    if ray is not None and slurm is not None:
        raise ValueError("--ray and --slurm exclude each other: name one")
    if ray is not None:
        return RayCluster(ray, workers=workers, gpus=gpus)
    if slurm is not None:
        return Slurm(out / "slurm", workers=workers, options=parse_options(slurm.split(","), where=slurm))
    return Processes(workers) if workers > 1 else None
