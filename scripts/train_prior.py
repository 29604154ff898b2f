"""Train an unconditional CT prior on a pack of slices; run again to resume. `--help` lists the options."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.networks import UNetConfig
from deft_ct.priors import save_prior
from deft_ct.priors.train import train_prior
from deft_ct.schedule import Schedule
from deft_ct.training import TrainingConfig


def main(
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint, the log and the finished prior.")],
    data: Annotated[Path | None, typer.Option(help="HDF5 pack; ct256/train.h5 of the data root by default.")] = None,
    steps: int = 6000,
    batch_size: int = 8,
    learning_rate: float = 4e-4,
    channels: Annotated[str, typer.Option(help="Features of each level.")] = "64,96,128",
    patch: Annotated[int, typer.Option(help="Side of the space-to-depth stem.")] = 4,
    layers: int = 1,
    ema_decay: float = 0.999,
    warmup: int = 100,
    seed: int = 0,
    max_minutes: Annotated[float | None, typer.Option(help="Stop with a checkpoint after this time.")] = None,
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
    compile_network: Annotated[bool, typer.Option("--compile", help="Compile the network.")] = False,
) -> None:
    """Train, and write the prior to OUT/prior."""
    levels = tuple(int(c) for c in channels.split(","))
    prior = train_prior(
        CTPack(data or data_root() / "ct256" / "train.h5"),
        out,
        network=UNetConfig(channels=levels, attention=(False,) * len(levels), patch=patch, layers=layers),
        schedule=Schedule(),
        training=TrainingConfig(
            steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed,
            max_minutes=max_minutes, ema_decay=ema_decay, warmup=warmup,
            precision=precision, compile=compile_network,  # type: ignore[arg-type]
        ),
    )  # fmt: skip
    save_prior(prior, out / "prior")
    typer.echo(json.dumps({"prior": str(out / "prior"), "sha256": prior.content_hash()}))


if __name__ == "__main__":
    typer.run(main)
