"""A volume is a batch of slices for a prior of images.

The prior denoises each slice by itself. What couples neighbouring slices are the data and the penalty of
:mod:`deft_ct.measurement.slice_coupling`, as in DiffusionMBIR (Chung et al. 2023, arXiv 2211.10655, section 3) and DDS.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SLICES_AT_ONCE = 16
"""Slices of a network evaluation: it bounds the memory, whatever the size of the volume."""


def slice_by_slice(
    predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x_t: Tensor, times: Tensor
) -> tuple[Tensor, Tensor]:
    """Apply a function of images to every slice of volumes.

    Args:
        predict: maps ``(N, C, H, W)`` and times ``(N,)`` to two tensors of the shape of the images.
        x_t: ``(B, C, Z, H, W)``.
        times: ``(B,)``.

    Returns:
        Two tensors of the shape of ``x_t``.
    """
    batch, channels, slices, height, width = x_t.shape
    images = x_t.movedim(2, 1).reshape(-1, channels, height, width)
    each = times.repeat_interleave(slices)
    parts = [
        predict(images[first : first + SLICES_AT_ONCE], each[first : first + SLICES_AT_ONCE])
        for first in range(0, len(images), SLICES_AT_ONCE)
    ]
    first, second = (torch.cat(found) for found in zip(*parts, strict=True))
    shape = (batch, slices, channels, height, width)
    return first.reshape(shape).movedim(1, 2).contiguous(), second.reshape(shape).movedim(1, 2).contiguous()
