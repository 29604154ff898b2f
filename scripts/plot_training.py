"""Draw the loss curves of the shipped networks for the documentation, from the logs in the folders of their weights.

A script and not a command, because users of the package do not need it.
"""

import csv
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.figure import Figure

from deft_ct.report import save_png


def main(
    out: Annotated[Path, typer.Argument(help="PNG file to write.")],
    folders: Annotated[list[Path], typer.Argument(help="Folders with training_log_1.csv and so on.")],
) -> None:
    """One panel for each folder; the phases of a training are drawn in order."""
    figure = Figure(figsize=(6 * len(folders), 3.2), layout="constrained")
    for axis, folder in zip(figure.subplots(1, len(folders), squeeze=False)[0], folders, strict=True):
        before = 0
        for path in sorted(folder.glob("training_log_[0-9]*.csv")):
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            axis.plot([before + int(r["step"]) for r in rows], [float(r["loss"]) for r in rows], ".-", label=path.stem)
            before += int(rows[-1]["step"])
        axis.set(title=folder.name, xlabel="optimiser steps", ylabel="training loss", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    save_png(figure, out)


if __name__ == "__main__":
    typer.run(main)
