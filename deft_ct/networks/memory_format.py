"""Order of the numbers of feature images in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_together(features: Tensor) -> Tensor:
    """Features with the channels of a pixel as neighbours in memory, where networks work in half precision.

    Convolutions keep the order of their input. In bfloat16 this one is faster on a processor. In float32 it is not, and
    the rounding would depend on the size of the batch.

    Args:
        features: ``(B, C, H, W)``.

    Returns:
        The same values.
    """
    if not torch.is_autocast_enabled(features.device.type):
        return features
    return features.contiguous(memory_format=torch.channels_last)
