"""One training loop for every network of the package: settings, order of the items, loop, checkpoints, logs."""

from deft_ct.training.checkpoint import CHECKPOINT, ema_weights
from deft_ct.training.config import TrainingConfig
from deft_ct.training.loop import Loss, Validation, fit
from deft_ct.training.order import item_order
from deft_ct.training.processes import is_main_process

__all__ = [
    "CHECKPOINT", "Loss", "TrainingConfig", "Validation", "ema_weights", "fit", "is_main_process", "item_order",
]  # fmt: skip
