"""Copy a trained prior or h-transform to another folder with a model card and the log of its training."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from deft_ct.htransform import load_htransform, save_htransform
from deft_ct.htransform.storage import METADATA as HTRANSFORM
from deft_ct.priors import load_prior, save_prior


def main(
    source: Annotated[Path, typer.Argument(help="Folder of a prior or h-transform.")],
    target: Annotated[Path, typer.Argument(help="Folder to write.")],
    card: Annotated[Path, typer.Option(help="JSON file; its entries are added to the card.")],
    log: Annotated[list[Path] | None, typer.Option(help="log.csv of the training; repeat for several phases.")] = None,
) -> None:
    """Write TARGET with the weights of SOURCE."""
    extra = json.loads(card.read_text())
    if (source / HTRANSFORM).is_file():
        htransform = load_htransform(source)
        htransform.card |= extra
        save_htransform(htransform, target)
    else:
        prior = load_prior(source)
        prior.card |= extra
        save_prior(prior, target)
    for number, path in enumerate(log or [], start=1):
        shutil.copyfile(path, target / f"training_log_{number}.csv")
    typer.echo(f"wrote {target}")


if __name__ == "__main__":
    typer.run(main)
