"""One training loop for every network of the package: settings, order of the items, loop, checkpoints, logs."""

from deft_ct.training.checkpoint import CHECKPOINT, TrainingRecord, ema_weights, training_record
from deft_ct.training.config import TrainingConfig
from deft_ct.training.loop import Loss, fit
from deft_ct.training.order import item_order, mixed_seed
from deft_ct.training.processes import is_main_process, training_folder
from deft_ct.training.time_limit import TimeLimit

__all__ = [
    "CHECKPOINT", "Loss", "TimeLimit", "TrainingConfig", "TrainingRecord", "ema_weights", "fit", "is_main_process",
    "item_order", "mixed_seed", "training_folder", "training_record",
]  # fmt: skip
