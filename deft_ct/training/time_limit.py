"""The time limit of a training that has several parts: a table, a first network, a second one."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace

import torch

from deft_ct.training.config import TrainingConfig
from deft_ct.training.processes import accelerator_for


@dataclass(frozen=True)
class TimeLimit:
    """``TrainingConfig.max_minutes``, counted from the moment when this object is made.

    Args:
        training: settings of the training loop.
    """

    training: TrainingConfig
    _began: float = field(default_factory=lambda: time.monotonic(), init=False)

    def reached(self) -> bool:
        """Whether the time is over. With several processes all get the same answer, so all of them must ask."""
        limit = self.training.max_minutes
        if limit is None:
            return False
        late = self._minutes() >= limit
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            accelerator = accelerator_for(self.training)
            late = bool(accelerator.reduce(torch.tensor([float(late)], device=accelerator.device)).item())
        return late

    def rest(self, training: TrainingConfig) -> TrainingConfig:
        """Settings of a part of the training with the time that is left."""
        limit = self.training.max_minutes
        return training if limit is None else replace(training, max_minutes=max(0.0, limit - self._minutes()))

    def _minutes(self) -> float:
        return (time.monotonic() - self._began) / 60
