"""Numbers that networks are evaluated in; everything around them stays in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def check_precision(precision: Precision) -> Precision:
    """Return a known precision.

    Raises:
        ValueError: it is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    return precision


def network_precision(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Context of a network evaluation: mixed precision by autocast, or no change.

    Args:
        device: of the network.
        precision: bfloat16 halves the time of a convolution on processors with AVX512-BF16 or AMX and on GPUs.
    """
    if precision == "float32":
        return nullcontext()  # and not a disabled autocast: a training has its own around the network
    return torch.autocast(device.type, dtype=getattr(torch, precision))
