"""Trainings that end at a time: the unrolled reconstruction, its error, and priors."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deft_ct.ct.pairs import augment_slices
from deft_ct.ct.resident_pairs import ResidentPairs
from deft_ct.diffusion import save_prior
from deft_ct.diffusion.train import PriorSpec, train_prior
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.supervised.unrolled import Unrolled, UnrolledModel, deviation_loss, staged_loss
from deft_ct.networks import UNetConfig
from deft_ct.training import TrainingConfig, fit
from deft_ct.training.augment import mirrored
from gpu_stages.common import memory, shape_for, timed
from gpu_stages.data import (
    DRAWN,
    DRAWN_512,
    FAMILY,
    FAMILY_512,
    NAMED,
    NAMED_512,
    Held,
    group,
    slices,
)

PART_BYTES = 15 * 2**20
"""Weights are written in files of at most this size."""


@dataclass(frozen=True, kw_only=True)
class TimedConfig(TrainingConfig):
    """A training whose learning rate follows the time and reaches its end at ``max_minutes``."""

    began: float = 0.0

    def rate(self, step: int) -> float:
        """See ``TrainingConfig.rate``; the step only counts for the warm-up."""
        assert self.max_minutes is not None
        share = min(1.0, (time.monotonic() - self.began) / (60 * self.max_minutes))
        along = step if step < self.warmup else self.warmup + round(share * (self.steps - self.warmup))
        return super().rate(along)


def timed_training(minutes: float, batch_size: int, rate: float, **changes: object) -> TimedConfig:
    """The settings of every training here."""
    values: dict[str, object] = {
        "steps": 10**6, "batch_size": batch_size, "learning_rate": rate, "optimizer": "muon", "momentum": 0.95,
        "warmup": 60, "ema_decay": 0.995, "precision": "bfloat16", "channels_last": True, "max_minutes": minutes,
        "began": time.monotonic(), "checkpoint_minutes": 1000.0, "log_every": 50,
    }  # fmt: skip
    return TimedConfig(**(values | changes))  # type: ignore[arg-type]


class WithError(nn.Module):
    """The network of the error around frozen stages."""

    def __init__(self, model: UnrolledModel) -> None:
        super().__init__()
        self.model = model
        for stage in model.stages:
            stage.requires_grad_(False)

    def forward(self, likelihood: object) -> tuple[Tensor, Tensor]:
        """The image and its standard deviation."""
        with torch.no_grad():
            found: Unrolled = self.model(likelihood)
        return found.images[-1], self.model.deviation(found)


def train(arguments: argparse.Namespace) -> None:
    """Train the stages of the unrolled reconstruction, then the network of its error."""
    out, rehearse = arguments.out, arguments.rehearse
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work = arguments.work
    deadline = time.monotonic() + 60 * arguments.minutes
    with timed(out, "slices"):
        held = slices(arguments.packs, rehearse, device)
    with timed(out, "matrices") as found:
        count, batch = (1, 2) if rehearse else (arguments.geometries, arguments.batch_size)
        named = {"parallel20_1e5": 1.0} if rehearse else NAMED
        groups = [group(held["train256"], named, DRAWN, FAMILY, count, batch)]
        if "train512" in held:
            small = min(count, 6)
            groups.append(group(held["train512"], NAMED_512, DRAWN_512, FAMILY_512, small, max(1, batch // 4)))
        for_error = group(held["held256"], named, DRAWN, FAMILY, min(count, 12), batch)
        found |= memory(device)
    pairs, error_pairs = ResidentPairs(groups), ResidentPairs([for_error])
    torch.manual_seed(0)
    model = UnrolledModel(shape_for(rehearse), value_range=PriorRange())
    if arguments.initial is not None:
        model.load_state_dict(written(arguments.initial))
    if arguments.compile:
        for stage in model.stages:
            stage.network.compile()
    error_minutes = min(1.0, 0.12 * arguments.minutes)
    minutes = (deadline - time.monotonic()) / 60 - error_minutes - 0.1
    with timed(out, "stages") as found:
        training = timed_training(minutes, batch, 4e-3)

        def loss(network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
            drawn = pairs.draw(indices, generator)
            return staged_loss(network(drawn.likelihood).images, drawn.x0)

        identity = pairs.description() | model.description()
        averaged = fit(model, loss, len(pairs), training, work / "stages", identity=identity, progress=False)
        assert isinstance(averaged, UnrolledModel)
        found |= {"steps": lines(work / "stages"), **memory(device)}
    write(averaged, out, work / "stages")
    with timed(out, "error") as found:
        training = timed_training(max(0.05, (deadline - time.monotonic()) / 60), batch, 3e-3, warmup=30, ema_decay=0.99)

        def error_loss(network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
            drawn = error_pairs.draw(indices, generator)
            image, deviation = network(drawn.likelihood)
            return deviation_loss(deviation, image.float() - drawn.x0)

        whole = fit(
            WithError(averaged.requires_grad_(True)), error_loss, len(error_pairs), training, work / "error",
            identity=error_pairs.description() | {"stages": averaged.content_hash()}, progress=False,
        )  # fmt: skip
        found |= {"steps": lines(work / "error")}
    assert isinstance(whole, WithError)
    write(whole.model, out, work / "error")


def lines(folder: Path) -> str:
    """The last line of a training log."""
    log = folder / "log.csv"
    return log.read_text().splitlines()[-1] if log.is_file() else ""


def write(model: nn.Module, out: Path, folder: Path) -> None:
    """Write weights in half precision, in parts that are small enough to travel, and the log beside them."""
    weights = {name: value.detach().half().cpu().contiguous() for name, value in model.state_dict().items()}
    parts: list[dict[str, Tensor]] = [{}]
    for name, value in weights.items():
        if sum(t.nbytes for t in parts[-1].values()) + value.nbytes > PART_BYTES:
            parts.append({})
        parts[-1][name] = value
    for number, part in enumerate(parts):
        save_file(part, out / f"unrolled-{number}.safetensors")
    if (folder / "log.csv").is_file():
        (out / f"log-{folder.name}.csv").write_text((folder / "log.csv").read_text())


def written(folder: Path) -> dict[str, Tensor]:
    """The weights of :func:`write`."""
    parts = [load_file(path) for path in sorted(folder.glob("unrolled-*.safetensors"))]
    return {name: value for part in parts for name, value in part.items()}


def prior(arguments: argparse.Namespace) -> None:
    """Train an unconditional prior of photographs or of CT slices."""
    out, rehearse = arguments.out, arguments.rehearse
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    deadline = time.monotonic() + 60 * arguments.minutes
    if arguments.domain == "photos":
        from deft_ct.datasets.images import PhotoCrops  # it needs pydicom, which a bare machine may not have

        crops = PhotoCrops(arguments.packs / "crops64.h5", "train")
        source: Held = Held(crops.batch(np.arange(8 if rehearse else len(crops))).to(device))
        network = UNetConfig(
            in_channels=3, out_channels=3, patch=1, channels=(64, 96, 128, 160), attention=(False, False, True, True),
            layers=1, norm_groups=8, scale_shift=True,
        )  # fmt: skip
        spec = PriorSpec(network=network, image_shape=(3, 64, 64), time_power=1.0)
        augment = mirrored
    else:
        hu, _ = slices(arguments.packs, rehearse, device)["train256"]
        source = Held(hu[:, None])
        network = UNetConfig(
            patch=4, channels=(64, 96, 128), attention=(False,) * 3, norm_groups=8, head_channels=32, scale_shift=True
        )
        spec = PriorSpec(network=network, image_shape=(1, *hu.shape[1:]), value_range=PriorRange())
        augment = partial(augment_slices, air_hu=-1000.0)
    if rehearse:
        spec = replace(spec, network=replace(network, channels=(32,), attention=(False,)))
    with timed(out, f"prior {arguments.domain}") as found:
        batch = 2 if rehearse else 2 * arguments.batch_size
        training = timed_training((deadline - time.monotonic()) / 60, batch, 2e-3, ema_decay=0.9995)
        folder = arguments.work / arguments.domain
        made = train_prior(source, folder, spec=spec, training=training, augment=augment, progress=False)
        found |= {"steps": lines(folder)}
    save_prior(made, out / f"prior-{arguments.domain}")
