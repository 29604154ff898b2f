"""Draw unconditional samples of a prior: what it knows of anatomy, and what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib
import torch
import typer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from deft_ct.diffusion import load_prior
from deft_ct.diffusion.samplers import walk
from deft_ct.diffusion.schedule import time_grid
from deft_ct.networks.precision import check_precision
from deft_ct.runtime.seeds import generator_for, normal_like


def main(
    target: Annotated[Path, typer.Argument(help="PNG to write.")],
    prior: Annotated[str | None, typer.Option(help="Folder or shipped name.")] = None,
    count: Annotated[int, typer.Option(help="Samples.", min=1)] = 8,
    steps: Annotated[int, typer.Option(help="Evaluations of each.", min=2)] = 50,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Write TARGET: the first COUNT samples of the seed, none left out."""
    model = load_prior(prior)
    model.precision = check_precision(precision)
    images = []
    with torch.no_grad():
        for number in range(count):
            like = torch.zeros(1, *model.image_shape)
            generator = generator_for(seed, "prior", str(number), 0)
            images.append(
                walk(
                    "dpm-solver", model.predict, normal_like(like, [generator]), model.schedule,
                    time_grid(model.schedule, steps, spacing="log_snr"), eta=1.0, generators=[generator],
                )[0, 0]
            )  # fmt: skip
    columns = min(count, 4)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns, 3 * rows + 0.4), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image in zip(axes.flat, images, strict=False):
        axis.imshow(image, cmap="gray", vmin=-1.0, vmax=0.6)
    figure.suptitle(
        "Samples of the prior, no measurement; -1000 to 600 HU. Research only, not for clinical use.", fontsize=8
    )
    figure.tight_layout()
    figure.savefig(target, dpi=100)
    typer.echo(f"wrote {target}")


if __name__ == "__main__":
    typer.run(main)
