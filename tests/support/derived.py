"""A result that is written as a derived series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Result:
    """What every reconstructor returns: mean and spread in 1/mm."""

    mean: torch.Tensor
    std: torch.Tensor | None


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())
