"""The processes of a training, as ``torchrun`` or ``accelerate launch`` have started them."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator

from deft_ct.networks.precision import Precision
from deft_ct.runtime.atomic import occupy_folder
from deft_ct.training.config import TrainingConfig

_ACCELERATE: dict[Precision, str] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""Names of accelerate."""


def is_main_process() -> bool:
    """Whether this process is the only one, or the one that writes files and talks."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def training_folder(folder: Path) -> Iterator[None]:
    """Hold the folder of a training, so that a second training there is refused. The main process holds it for all.

    Raises:
        InUseError: another training writes there.
    """
    with occupy_folder(folder) if is_main_process() else contextlib.nullcontext():
        yield


def accelerator_for(config: TrainingConfig) -> Accelerator:
    """The device of this process and its ties to the others.

    Raises:
        RuntimeError: several processes were started that do not know each other.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    # accelerate takes processes without a GPU for separate runs, unless it is given cpu=True.
    accelerator = Accelerator(
        mixed_precision=_ACCELERATE[config.precision], cpu=launched > 1 and not torch.accelerator.is_available()
    )
    if accelerator.num_processes != launched:
        raise RuntimeError(
            f"{launched} processes were started, and accelerate sees {accelerator.num_processes}: they would train the "
            "same network into the same folder"
        )
    if launched > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return accelerator


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
