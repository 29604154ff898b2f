"""``deft-ct prior``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.commands import CheckedCommand
from deft_ct.cli.errors import one_line_errors
from deft_ct.diffusion import save_prior
from deft_ct.diffusion.importers import ImportOptions, import_prior
from deft_ct.diffusion.prior import Prediction
from deft_ct.diffusion.prior_folder import METADATA
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.scales import PriorRange

app = typer.Typer(no_args_is_help=True, help="Priors that other programs have trained.")


@app.command("import", cls=CheckedCommand)
def import_command(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of diffusers (pipeline or UNet2DModel), or checkpoint of guided-diffusion (.pt)."),
    ],
    out: opt.Out,
    low: Annotated[
        float | None, typer.Option(help="CT number (HU) of the value -1. Leave out for photographs.")
    ] = None,
    high: Annotated[
        float | None, typer.Option(help="CT number (HU) of the value +1. Leave out for photographs.")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side of the training images, for a checkpoint.", min=1)] = 256,
    head_channels: Annotated[
        int, typer.Option(help="Channels of one attention head, for a checkpoint (num_head_channels).", min=1)
    ] = 64,
    new_attention_order: Annotated[
        bool, typer.Option(help="The checkpoint was trained with use_new_attention_order.")
    ] = False,
    prediction: Annotated[
        Prediction, typer.Option(help="What the network predicts, where no scheduler is beside it.")
    ] = "epsilon",
    beta_end: Annotated[
        float, typer.Option(help="Variance of the last step of the linear schedule, where no scheduler is beside it.")
    ] = 0.02,
    licence: Annotated[str, typer.Option(help="Licence of the weights, kept with the prior.")] = "",
    overwrite: opt.Overwrite = False,
) -> None:
    """Convert a diffusion model of another program into a prior. Nothing in its files is run.

    Example: `deft-ct prior import FILE_OR_FOLDER --out my-prior`

    Writes the folder OUT. Pass it as --prior to the other commands.
    """
    with one_line_errors():
        if (low is None) != (high is None):
            raise ValueError("pass both --low and --high, or neither for photographs")
        if (out / METADATA).is_file() and not overwrite:
            raise FileExistsError(f"{out} holds a prior: choose another folder, or pass --overwrite to replace it")
        span = None if low is None or high is None else PriorRange(low, high)
        card = {"source": source.name, **({"licence": licence} if licence else {})}
        options = ImportOptions(
            value_range=span, image_size=image_size, head_channels=head_channels, by_kind=new_attention_order,
            schedule=Schedule(beta_end=beta_end), prediction=prediction, card=card,
        )  # fmt: skip
        prior = import_prior(source, options)
        save_prior(prior, out)
        count = sum(value.numel() for value in prior.parameters())
        console = Console()
        network = type(prior.network).__name__
        console.print(f"{network} of {count / 1e6:.2f} M parameters, images {prior.image_shape}, {prior.prediction}")
        console.print(f"SHA-256 {prior.content_hash()[:16]}")
        console.print(f"written to [bold]{escape(str(out))}[/]", soft_wrap=True)
