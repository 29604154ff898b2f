"""``deft-ct restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.methods.method_text import parse_method
from deft_ct.workflows.restore import RestoreSettings, restore_photograph

_DEFAULTS = RestoreSettings(operator="sr4")


def restore(
    picture: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture file: PNG, JPEG, TIFF, ...")],
    out: opt.Out,
    operator: opt.OperatorName = None,
    measurement: Annotated[
        bool, typer.Option("--measurement", help="IMAGE is degraded already; otherwise the degradation is simulated.")
    ] = False,
    mask: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Picture of the observed pixels (white) and the missing ones (black)."),
    ] = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="FILE", help="Blur kernel, a picture or a .npy file with odd sides.")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="SIGMA", help="Standard deviation of the noise on images in [-1, 1]. Default: of the operator."
        ),
    ] = None,
    method: opt.Methods = None,
    samples: opt.Samples = None,
    seed: opt.Seed = _DEFAULTS.seed,
    device: opt.Device = _DEFAULTS.device,
    precision: opt.PrecisionName = _DEFAULTS.precision,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    overwrite: opt.Overwrite = False,
    progress: opt.Progress = True,
) -> None:
    """Restore a photograph after a simulated or a real degradation.

    Example: `deft-ct restore photo.png --operator sr4 --method deft --out result`

    `deft-ct restore photo.png --operator sr4 --out result` writes restored.png, degraded.png and run.json to a folder.
    With `--out result.png` they are result.png, result.degraded.png and result.run.json. Pictures of any size and of
    grey or RGB pixels are taken. `--measurement` with `--mask`, `--kernel` or `--operator` takes a picture that is
    degraded already.
    """
    with one_line_errors():
        name, options = parse_method(opt.only(method or [_DEFAULTS.method], "--method"))
        settings = RestoreSettings(
            operator=operator, measured=measurement, mask=mask, kernel=kernel, noise=noise, method=name,
            options=options,
            samples=_DEFAULTS.samples if samples is None else samples, seed=seed, device=device, precision=precision,
            prior=prior,
            htransform=htransform,
        )  # fmt: skip
        restored = restore_photograph(picture, out, settings, overwrite=overwrite, progress=progress)
    console = Console(soft_wrap=True, highlight=False)
    quality = "".join(f", {key.removesuffix('_db').upper()} {value:.4g}" for key, value in restored.metrics.items())
    console.print(f"{settings.label}, {name}: data residual {restored.result.provenance['data_residual']:.3g}{quality}")
    for note in restored.notes:
        console.print(f"[dim]{escape(note)}[/]")
    console.print(f"written to [bold]{escape(str(restored.target))}[/]")
