"""Versions, whether the GPU computes what the CPU does, and how long things take."""

from __future__ import annotations

import argparse
import itertools
import os
import time

import torch
from torch import Tensor

from deft_ct.ct.resident_pairs import ResidentPairs
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.supervised.unrolled import UnrolledModel, staged_loss
from deft_ct.training.muon import Muon
from gpu_stages.common import memory, seconds, shape_for, timed
from gpu_stages.data import DRAWN, FAMILY, NAMED, group, slices
from gpu_stages.ray_transforms import BACKENDS, ray_transform


def check(arguments: argparse.Namespace) -> None:
    """Versions, whether the GPU computes what the CPU does, and how long things take."""
    out, rehearse = arguments.out, arguments.rehearse
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with timed(out, "versions") as found:
        found |= {"torch": torch.__version__, "cuda": str(torch.version.cuda), "cpus": os.cpu_count() or 0}
        found |= {"gpu": torch.cuda.get_device_name()} if device.type == "cuda" else {}
    for name, backend in itertools.product(("parallel60_1e5", "fan60_1e5"), BACKENDS):
        with timed(out, f"ray transform {name} {backend}") as found:
            found |= ray_transform(name, backend, device, rehearse)
    with timed(out, "slices"):
        held = slices(arguments.packs, rehearse, device)
    with timed(out, "step") as found:
        found |= steps(held["train256"], arguments, device)


def steps(held: tuple[Tensor, Tensor], arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Seconds that the matrices take, of a training step in both memory layouts, and of its parts."""
    batch = 2 if arguments.rehearse else arguments.batch_size
    began = time.monotonic()
    count = 1 if arguments.rehearse else arguments.geometries
    pairs = ResidentPairs([group(held, NAMED, DRAWN, FAMILY, count, batch)])
    result: dict[str, object] = {"matrices_s": round(time.monotonic() - began, 1)}
    for name, layout in {"plain": torch.contiguous_format, "channels_last": torch.channels_last}.items():
        model = UnrolledModel(shape_for(arguments.rehearse), value_range=PriorRange()).to(device)
        model.to(memory_format=layout)  # type: ignore[call-overload]
        if arguments.compile:
            for stage in model.stages:
                stage.network.compile()
        result |= {f"{name}_{what}": value for what, value in step_times(model, pairs, batch, device).items()}
    return result | memory(device)


def step_times(model: UnrolledModel, pairs: ResidentPairs, batch: int, device: torch.device) -> dict[str, float]:
    """Seconds of the first step, of a later one, of the optimiser and of drawing the data."""
    optimizer = Muon(model.parameters(), lr=1e-3)
    generator, indices = torch.Generator(device).manual_seed(0), torch.arange(batch)

    def step() -> None:
        drawn = pairs.draw(indices, generator)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = staged_loss(model(drawn.likelihood).images, drawn.x0)
        loss.backward()

    began = time.monotonic()
    step()
    return {
        "first_s": round(time.monotonic() - began, 2),
        "step_s": round(seconds(step, device), 4),
        "optimizer_s": round(seconds(optimizer.step, device, 5), 4),
        "draw_s": round(seconds(lambda: pairs.draw(indices, generator), device), 4),
    }
