"""How a network is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from deft_ct.networks.precision import Precision
from deft_ct.runtime.fields import check_fields

MOST_ITEMS = 2**20
"""Largest batch of a training step."""
LEAST_RATE = 1e-10
"""Smallest learning rate: with a lower one float32 weights do not change."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained.

    Args:
        steps: optimiser steps of the whole training.
        batch_size: items of one optimiser step, over all processes and accumulated parts: a multiple of both together.
        learning_rate: peak rate.
        optimizer: "adamw" or "muon", see :class:`~deft_ct.training.muon.Muon`.
        momentum: of Muon's matrices; AdamW keeps its own betas. A lower one follows the loss faster, with more noise.
        warmup: steps of linear warm-up; cosine decay to ``final_rate * learning_rate`` follows.
        final_rate: fraction of the peak rate at the end.
        weight_decay: decoupled from the gradients.
        ema_decay: decay of the averaged weights; ramps up as ``(1 + n) / (10 + n)`` from the start.
        grad_clip: largest gradient norm.
        accumulate: parts that a batch is split into, one after the other, to save memory.
        precision: "float32", or "bfloat16" or "float16" for mixed precision; frozen networks are evaluated in it, too.
        compile: compile the network with torch.compile.
        channels_last: keep convolution weights channels-last, faster on GPUs with tensor cores.
        seed: of the order of the data and of all noise.
        checkpoint_minutes: time between two checkpoints.
        max_minutes: stop (with a checkpoint) after this time; None for no limit.
        log_every: steps between two lines of the log.
        tensorboard: write TensorBoard events to the folder of ``log.csv``; needs the extra ``tensorboard``.
        overwrite: start anew where the folder holds a checkpoint, which the first new one replaces.

    Raises:
        ValueError: a value is out of range.
        ImportError: TensorBoard is asked for and not installed.
    """

    steps: int
    batch_size: int = 8
    learning_rate: float = 3e-4
    optimizer: Literal["adamw", "muon"] = "adamw"
    momentum: float = 0.95
    warmup: int = 100
    final_rate: float = 0.02
    weight_decay: float = 0.0
    ema_decay: float = 0.999
    grad_clip: float = 1.0
    accumulate: int = 1
    precision: Precision = "float32"
    compile: bool = False
    channels_last: bool = False
    seed: int = 0
    checkpoint_minutes: float = 5.0
    max_minutes: float | None = None
    log_every: int = 20
    tensorboard: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.steps, self.batch_size, self.accumulate, self.log_every) < 1:
            raise ValueError("steps, batch_size, accumulate and log_every must be at least 1")
        if self.batch_size > MOST_ITEMS:
            raise ValueError(f"batch_size must be at most {MOST_ITEMS}, got {self.batch_size}")
        if not LEAST_RATE <= self.learning_rate < 1:
            raise ValueError(f"learning_rate must be at least {LEAST_RATE} and below 1, got {self.learning_rate}")
        if self.warmup < 0 or not 0 <= self.final_rate <= 1 or self.weight_decay < 0 or self.grad_clip <= 0:
            raise ValueError(
                "warmup and weight_decay must be at least 0, final_rate lie in [0, 1] and grad_clip be above 0, got "
                f"{self.warmup}, {self.weight_decay}, {self.final_rate} and {self.grad_clip}"
            )
        if self.checkpoint_minutes <= 0 or (self.max_minutes is not None and self.max_minutes < 0):
            raise ValueError(
                "checkpoint_minutes must be above 0 and max_minutes at least 0, got "
                f"{self.checkpoint_minutes} and {self.max_minutes}"
            )
        if not (0 <= self.ema_decay < 1 and 0 <= self.momentum < 1):
            raise ValueError(f"ema_decay and momentum must lie in [0, 1), got {self.ema_decay} and {self.momentum}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}")
        if self.tensorboard and find_spec("tensorboard") is None:  # before any long work
            raise ImportError("TensorBoard logs need TensorBoard: pip install deft-ct[tensorboard]")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        low = self.final_rate
        return self.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
