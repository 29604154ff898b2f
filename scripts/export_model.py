"""Copy a trained network to another folder with a model card and the log of its training.

A script and not a command, because only a release of new weights needs it.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from deft_ct.diffusion import load_prior, save_prior
from deft_ct.diffusion.prior_folder import METADATA as PRIOR
from deft_ct.methods.deft import load_htransform, save_htransform
from deft_ct.methods.deft.folder import METADATA as HTRANSFORM
from deft_ct.methods.registry import method_class
from deft_ct.methods.supervised.model import METADATA as MODEL
from deft_ct.runtime.atomic import atomic_file


def main(
    source: Annotated[Path, typer.Argument(help="Folder of a prior, an h-transform or a supervised model.")],
    target: Annotated[Path, typer.Argument(help="Folder to write.")],
    card: Annotated[Path, typer.Option(help="JSON file; its entries are added to the card.")],
    log: Annotated[
        list[Path] | None, typer.Option(help="log.csv of the training. Repeat it for several phases.")
    ] = None,
) -> None:
    """Write TARGET with the weights of SOURCE."""
    extra = json.loads(card.read_text())
    if (source / HTRANSFORM).is_file():
        htransform = load_htransform(source)
        htransform.card |= extra
        save_htransform(htransform, target)
    elif (source / PRIOR).is_file():
        prior = load_prior(source)
        prior.card |= extra
        save_prior(prior, target)
    else:
        kind = json.loads((source / MODEL).read_text())["kind"]
        method: Any = method_class(kind)
        model = method.model_type.load(source)
        model.card |= extra
        model.save(target)
    for number, path in enumerate(log or [], start=1):
        with atomic_file(target / f"training_log_{number}.csv") as part:
            shutil.copyfile(path, part)
    typer.echo(f"wrote {target}")


if __name__ == "__main__":
    typer.run(main)
