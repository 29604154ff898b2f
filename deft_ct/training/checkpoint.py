"""Checkpoints: everything that a training needs to resume as if it had never stopped, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from deft_ct.runtime.content_key import ANEW, ContentKey, OtherContentError, result_versions
from deft_ct.training.checkpoint_file import read_checkpoint, write_checkpoint
from deft_ct.training.config import TrainingConfig

CHECKPOINT = "checkpoint.pt"

_MODULE = "module."
"""Prefix of the weights in the state of an ``AveragedModel``."""

FREE = (
    "accumulate", "compile", "channels_last", "checkpoint_minutes", "max_minutes", "log_every",
    "tensorboard", "overwrite",
)  # fmt: skip
"""Settings that may change on resuming. ``accumulate`` only together with the number of processes, see
:func:`training_key`."""


def training_key(config: TrainingConfig, parts: int, identity: Mapping[str, Any]) -> ContentKey:
    """Everything that the weights of a training depend on.

    Args:
        config: settings.
        parts: parts that every batch is split into, ``accumulate`` times processes. Each has its own random numbers.
        identity: what is trained, on what data.
    """
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    return ContentKey(dict(identity) | settings | {"accumulate x processes": parts, "versions": result_versions()})


@dataclass(kw_only=True)
class State:
    """What changes in a training, and what it must not be mixed up with.

    Args:
        network: the module in training.
        optimizer: its optimiser.
        averaged: moving average of the weights.
        key: see :func:`training_key`.
        scaler: gradient scaler of a float16 training, or None.
    """

    network: nn.Module
    optimizer: Any
    averaged: AveragedModel
    key: ContentKey
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
            "key": dict(self.key.parts),
        }
        write_checkpoint(path, state)

    def resume(self, path: Path) -> int:
        """Take over the state in ``path``, if there is one, or else the one before it.

        Returns:
            The number of optimiser steps done.

        Raises:
            OtherContentError: it belongs to another training.
            ValueError: both checkpoints are damaged.
        """
        state = read_checkpoint(path)
        if state is None:
            return 0
        if "key" not in state:
            raise OtherContentError(
                f"{path} is of an older version, which did not record all that it depends on: {ANEW}"
            )
        self.key.check(state["key"], path)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged.load_state_dict(state["averaged"])
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        return int(state["step"])


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What a checkpoint says of its training.

    Attributes:
        steps: optimiser steps done; fewer than asked for if the training met its time limit.
        key: all that its weights depend on, apart from these steps.
    """

    steps: int
    key: ContentKey


def training_record(folder: Path) -> TrainingRecord:
    """The record of the checkpoint in ``folder``.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    state = _read(folder)
    return TrainingRecord(steps=int(state["step"]), key=ContentKey(state["key"]))


def ema_weights(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of the checkpoint in ``folder``.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    stored: dict[str, Tensor] = _read(folder)["averaged"]
    return {name.removeprefix(_MODULE): value for name, value in stored.items() if name.startswith(_MODULE)}


def _read(folder: Path) -> dict[str, Any]:
    state = read_checkpoint(folder / CHECKPOINT)
    if state is None:
        raise FileNotFoundError(f"no checkpoint {folder / CHECKPOINT}; train first")
    return state
