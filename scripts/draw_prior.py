"""Draw samples of a prior without measurements, for a figure of the documentation.

A script and not a command, because users of the package do not need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib
import torch
import typer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from deft_ct.diffusion import load_prior
from deft_ct.diffusion.samplers import dpm_solver
from deft_ct.diffusion.schedule import time_grid
from deft_ct.networks.precision import Precision
from deft_ct.runtime.atomic import atomic_file
from deft_ct.runtime.seeds import generator_for, normal_like


def main(
    target: Annotated[Path, typer.Argument(help="PNG to write.")],
    prior: Annotated[str | None, typer.Option(help="Diffusion prior: a folder or a shipped name.")] = None,
    count: Annotated[int, typer.Option(help="Number of samples.", min=1)] = 8,
    steps: Annotated[int, typer.Option(help="Network evaluations of each sample.", min=2)] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    precision: Annotated[Precision, typer.Option(help="Number format of the network.")] = "float32",
) -> None:
    """Write TARGET: the first COUNT samples of the seed, none left out."""
    model = load_prior(prior)
    model.precision = precision
    images = []
    with torch.no_grad():
        for number in range(count):
            like = torch.zeros(1, *model.image_shape)
            generator = generator_for(seed, "prior", str(number), 0)
            images.append(
                dpm_solver(
                    model.predict, normal_like(like, [generator]), model.schedule,
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
    with atomic_file(target) as part:
        figure.savefig(part, dpi=100)
    typer.echo(f"wrote {target}")


if __name__ == "__main__":
    typer.run(main)
