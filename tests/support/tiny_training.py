"""A training of milliseconds, also as a program: ``python tiny_training.py FOLDER '{"steps": 24}' [SECONDS PER STEP]``.

The program may be started by ``torchrun``; it prints the number of processes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from deft_ct.training import TrainingConfig, fit, is_main_process


def tiny_network() -> nn.Module:
    """Two layers, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def tiny_loss(network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
    """Of inputs that depend on the items and on the random numbers."""
    x = torch.randn(len(indices), 4, generator=generator) + indices[:, None] / 10
    return (network(x) - x.sum(1, keepdim=True)).square().mean()


def tiny_config(**changes: object) -> TrainingConfig:
    """24 steps of 4 items."""
    usual = {"steps": 24, "batch_size": 4, "warmup": 3, "log_every": 4, "learning_rate": 1e-2}
    return TrainingConfig(**usual | changes)  # type: ignore[arg-type]


def main() -> None:
    """Train in a folder."""
    folder, changes, pause = Path(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 0.0

    def loss(network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        time.sleep(pause)
        return tiny_loss(network, indices, generator)

    fit(tiny_network(), loss, 10, tiny_config(**changes), folder, identity={}, progress=False)
    if torch.distributed.is_initialized() and is_main_process():
        sys.stdout.write(f"processes: {torch.distributed.get_world_size()}\n")


if __name__ == "__main__":
    main()
