"""Exponential moving average of the weights in training."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged_model(network: nn.Module, decay: float) -> AveragedModel:
    """A moving average of parameters and buffers whose decay ramps up as ``(1 + n) / (10 + n)`` after ``n`` updates.

    Args:
        network: gives the weights that the average starts from.
        decay: largest decay.
    """
    averaged = AveragedModel(network, multi_avg_fn=partial(_update, decay), use_buffers=True)
    # Counts from 1: torch copies the weights at 0, and here the average starts from the initial weights.
    averaged.n_averaged.fill_(1)
    return averaged


@torch.no_grad()
def _update(decay: float, averages: list[Tensor], values: list[Tensor], updates: Tensor | int) -> None:
    done = int(updates) - 1
    rate = 1 - min(decay, (1 + done) / (10 + done))
    for average, value in zip(averages, values, strict=True):
        average.lerp_(value, rate) if average.is_floating_point() else average.copy_(value)
