"""What the stages share: their record, the memory of the GPU, and the shape of the network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from deft_ct.methods.supervised.unrolled import UnrolledShape
from deft_ct.networks import UNetConfig


@contextmanager
def timed(out: Path, what: str) -> Iterator[dict[str, object]]:
    """Print a stage with its time and what it found, and add the line to ``OUT/stages.jsonl``."""
    began, found = time.monotonic(), dict[str, object]()
    try:
        yield found
    except Exception as error:  # the next stage may still be of use
        found["failed"] = repr(error)
        raise
    finally:
        line = json.dumps({"stage": what, "seconds": round(time.monotonic() - began, 2), **found})
        print(line, flush=True)
        with (out / "stages.jsonl").open("a") as file:
            file.write(line + "\n")


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """Mean time of a call; of several calls after one that is not counted."""
    if repeats > 1:
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.monotonic()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.monotonic() - began) / repeats


def memory(device: torch.device) -> dict[str, object]:
    """GPU memory in use and at most, GB."""
    if device.type != "cuda":
        return {}
    used, peak = torch.cuda.memory_allocated() / 1e9, torch.cuda.max_memory_allocated() / 1e9
    return {"gpu_gb": round(used, 1), "gpu_peak_gb": round(peak, 1)}


def shape_for(rehearse: bool) -> UnrolledShape:
    """The shape of the shipped network, or a tiny one."""
    if not rehearse:
        return UnrolledShape()
    tiny = UNetConfig(patch=4, channels=(16,), attention=(False,), norm_groups=8, head_channels=16, scale_shift=True)
    return UnrolledShape(stages=2, network=tiny, spread_network=tiny)
