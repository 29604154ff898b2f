"""Checkpoints: everything that a training needs to resume as if it had never stopped, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from deft_ct.training.checkpoint_file import read_checkpoint, write_checkpoint
from deft_ct.training.config import TrainingConfig

CHECKPOINT = "checkpoint.pt"

_MODULE = "module."
"""Prefix of the weights in the state of an ``AveragedModel``."""

FREE = (
    "accumulate", "compile", "channels_last", "checkpoint_minutes", "max_minutes", "log_every",
    "tensorboard",
)  # fmt: skip
"""Settings that may change on resuming. ``accumulate`` only together with the number of processes, see ``parts``."""


@dataclass(kw_only=True)
class State:
    """What changes in a training, and what it must not be mixed up with.

    Args:
        network: the module in training.
        optimizer: its optimiser.
        averaged: moving average of the weights.
        config: settings.
        parts: parts that every batch is split into, ``accumulate`` times processes. Each has its own random numbers.
        identity: hashes of what else makes this training what it is, see :func:`digests`.
        scaler: gradient scaler of a float16 training, or None.
    """

    network: nn.Module
    optimizer: Any
    averaged: AveragedModel
    config: TrainingConfig
    parts: int
    identity: dict[str, str]
    scaler: torch.amp.GradScaler | None = None

    def save(self, path: Path, step: int) -> None:
        """Write the state after ``step`` optimiser steps; the checkpoint before is kept.

        Raises:
            WriteError: the disk is full or refuses.
        """
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "step": step,
            "config": asdict(self.config),
            "parts": self.parts,
            "identity": dict(self.identity),
        }
        write_checkpoint(path, state)

    def resume(self, path: Path) -> int:
        """Take over the state in ``path``, if there is one, or else the one before it.

        Returns:
            The number of optimiser steps done.

        Raises:
            ValueError: it belongs to another training, or both checkpoints are damaged.
        """
        state = read_checkpoint(path)
        if state is None:
            return 0
        if "n_averaged" not in state["averaged"]:
            raise ValueError(f"{path} is of an older version and cannot be resumed: use another folder to start anew")
        before = state["config"]
        changed = [name for name, value in before.items() if name not in FREE and value != getattr(self.config, name)]
        if state.get("parts", before["accumulate"]) != self.parts:
            changed.append("accumulate times processes")
        known = state.get("identity", self.identity)
        changed += sorted(name for name in known | self.identity if known.get(name) != self.identity.get(name))
        if changed:
            raise ValueError(
                f"{path} was written with another {', '.join(changed)}: use the same values to resume, "
                "or another folder to start anew"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged.load_state_dict(state["averaged"])
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        return int(state["step"])


def digests(identity: Mapping[str, Any] | None) -> dict[str, str]:
    """A hash of each value: short, and alike before and after a checkpoint."""
    return {name: digest(value) for name, value in (identity or {}).items()}


def digest(value: Any) -> str:
    """SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def steps_done(folder: Path) -> int:
    """Optimiser steps of the checkpoint in ``folder``, 0 without one: a training may have met its time limit."""
    state = read_checkpoint(folder / CHECKPOINT)
    return 0 if state is None else int(state["step"])


def ema_weights(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of the checkpoint in ``folder``.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    state = read_checkpoint(folder / CHECKPOINT)
    if state is None:
        raise FileNotFoundError(f"no checkpoint {folder / CHECKPOINT}; train first")
    stored: dict[str, Tensor] = state["averaged"]
    return {name.removeprefix(_MODULE): value for name, value in stored.items() if name.startswith(_MODULE)}
