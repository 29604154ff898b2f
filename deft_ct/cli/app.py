"""The commands of ``deft-ct``, one module each."""

from __future__ import annotations

import typer

from deft_ct.cli import benchmark, data, prior, train
from deft_ct.cli.calibrate import calibrate
from deft_ct.cli.commands import CheckedCommand, Commands, set_traceback
from deft_ct.cli.compare import compare
from deft_ct.cli.demo import demo
from deft_ct.cli.finetune import finetune_command
from deft_ct.cli.info import info
from deft_ct.cli.models import models
from deft_ct.cli.reconstruct import reconstruct
from deft_ct.cli.restore import restore
from deft_ct.cli.scaffold import scaffold
from deft_ct.cli.tune import tune_command
from deft_ct.cli.verify import verify

app = typer.Typer(
    name="deft-ct",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Sparse-view CT reconstruction with a diffusion prior and DEFT. "
    "**Research only, not for clinical use.** Exit status: 0 done, 1 unexpected error, 2 refused, 130 interrupted.",
)
app.callback()(set_traceback)
app.command(cls=CheckedCommand)(reconstruct)
app.command(cls=CheckedCommand)(restore)
app.command(cls=CheckedCommand)(scaffold)
app.command(cls=CheckedCommand)(demo)
app.command(cls=CheckedCommand)(verify)
app.add_typer(benchmark.app, name="benchmark")
app.command(cls=CheckedCommand)(compare)
app.command("tune", cls=CheckedCommand)(tune_command)
app.command(cls=CheckedCommand)(calibrate)
app.add_typer(train.app, name="train")
app.add_typer(data.app, name="data")
app.command("finetune", cls=CheckedCommand)(finetune_command)
app.add_typer(prior.app, name="prior")
app.command(cls=CheckedCommand)(models)
app.command(cls=CheckedCommand)(info)
