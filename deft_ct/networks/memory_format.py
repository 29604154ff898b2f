"""Order of the numbers of convolutions in memory."""

from __future__ import annotations

import torch
from torch import nn


def channels_together(network: nn.Module) -> None:
    """Have the convolutions of a network work on images whose channels are neighbours in memory.

    In bfloat16 they take half of the time on a processor, and less on a GPU. The results differ by rounding.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
