"""Train the h-transform of a prior for a simulated CT scan; run again to resume. `--help` lists the options."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.htransform import HTransformConfig, load_htransform, save_htransform
from deft_ct.htransform.train import train_htransform
from deft_ct.measurement import Measurement
from deft_ct.networks import UNetConfig
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise
from deft_ct.priors import load_prior
from deft_ct.training import TrainingConfig
from deft_ct.units import HounsfieldScale


def main(
    prior: Annotated[Path, typer.Option(help="Folder of the frozen prior.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint, the log and the finished h-transform.")],
    data: Annotated[Path | None, typer.Option(help="HDF5 pack; ct256/train.h5 of the data root by default.")] = None,
    views: Annotated[int, typer.Option(help="Parallel views over 180 degrees.")] = 60,
    detectors: int = 364,
    photons: float = 1e5,
    reference: Annotated[str, typer.Option(help="none, fbp or tv.")] = "tv",
    guidance: Annotated[str, typer.Option(help="score, adjoint or fbp.")] = "fbp",
    channels: Annotated[str, typer.Option(help="Features of each level.")] = "64,96,128",
    initial: Annotated[Path | None, typer.Option(help="Go on from this h-transform, with a new schedule.")] = None,
    steps: int = 2000,
    batch_size: int = 8,
    learning_rate: float = 4e-4,
    warmup: int = 50,
    ema_decay: float = 0.995,
    seed: int = 0,
    max_minutes: Annotated[float | None, typer.Option(help="Stop with a checkpoint after this time.")] = None,
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
) -> None:
    """Train, and write the h-transform to OUT/htransform."""
    pack = CTPack(data or data_root() / "ct256" / "train.h5")
    levels = tuple(int(c) for c in channels.split(","))
    geometry = ParallelGeometry(
        image_shape=pack.image_shape, pixel_mm=1.0, views=views, detectors=detectors, detector_mm=1.0
    )
    htransform = train_htransform(
        pack,
        load_prior(prior),
        [Measurement(RayTransform(geometry), PoissonNoise(photons=photons), units=HounsfieldScale())],
        out,
        config=HTransformConfig(
            reference=reference, guidance=guidance,  # type: ignore[arg-type]
            network=UNetConfig(channels=levels, attention=(False,) * len(levels)),
        ),
        initial=None if initial is None else load_htransform(initial),
        training=TrainingConfig(
            steps=steps, batch_size=batch_size, learning_rate=learning_rate, warmup=warmup, ema_decay=ema_decay,
            seed=seed, max_minutes=max_minutes, precision=precision,  # type: ignore[arg-type]
        ),
    )  # fmt: skip
    htransform.card |= {
        "scan": {"geometry": "parallel", "views": views, "detectors": detectors, "photons": photons},
        "training_steps": steps,
        "batch_size": batch_size,
    }
    save_htransform(htransform, out / "htransform")
    typer.echo(json.dumps({"htransform": str(out / "htransform"), "sha256": htransform.content_hash()}))


if __name__ == "__main__":
    typer.run(main)
