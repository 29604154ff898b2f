"""A method that writes down what it is asked for, and that can be told to fail, to wait, or to take its time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.worker import Benchmark
from deft_ct.problems.ct import CTProblem
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor, UnsupportedError

LOG = "DEFT_CT_TEST_LOG"
"""Environment variable with the folder of the log: a line for each image that was reconstructed, with the process."""

TIMES = ["seconds", "peak_memory_mib"]
"""Columns of a benchmark that differ from run to run."""


@dataclass(frozen=True, kw_only=True)
class CountedConfig:
    """What becomes of the images."""

    gain: float = 1.0
    seconds: float = 0.0
    fails: str = ""
    """``refused``, ``memory``, ``broken``, or the name of an image that diverges."""


class Counted(Reconstructor):
    """The back-projection of the data, scaled."""

    name = "counted"
    config_type: ClassVar[type] = CountedConfig
    uses_data = False

    def _check(self, request: Request) -> None:
        if self.config.fails == "refused":
            raise UnsupportedError("counted refuses this measurement")

    def _estimate(self, request: Request) -> Estimate:
        time.sleep(self.config.seconds)
        if folder := os.environ.get(LOG):
            with (Path(folder) / "log").open("a") as file:
                file.write("".join(f"{os.getpid()} {len(request.y)} {name}\n" for name in request.image_ids))
        if self.config.fails == "memory":
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        if self.config.fails == "broken":
            raise KeyError("weights")
        image = request.measurement.operator.adjoint(request.y) * (1e-4 * self.config.gain)
        broken = [name == self.config.fails for name in request.image_ids]
        image[torch.tensor(broken)] = torch.nan
        return Estimate(mean=image)


BATCH, METHODS = 2, 3
"""Slices at once, and methods, of :func:`counted_benchmark`."""


def counted_benchmark(pack: Path, seconds: float = 0.0) -> Benchmark:
    """Methods of other gains on the slices of a pack. It is here so that processes can load it by its name."""
    problem = CTProblem(CTPack(pack), Scan(views=8, detectors=48), batch_size=BATCH)
    return Benchmark(
        [problem], [{f"gain {n}": Counted(CountedConfig(gain=1.0 + n, seconds=seconds)) for n in range(METHODS)}]
    )


def logged(folder: Path) -> list[tuple[int, int, str]]:
    """Process, size of the batch, and name of every image that was reconstructed."""
    path = folder / "log"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [(int(a), int(b), c) for a, b, c in (line.split(" ", 2) for line in lines)]
