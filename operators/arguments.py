"""Checks of what an operator is given, and the device that it works on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def device_of(module: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a module without any."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


def checked(operator: nn.Module, x: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    """The argument of an operator, float16 and bfloat16 as float32.

    Args:
        operator: named in messages.
        x: the argument, ``(..., *shape)``.
        shape: trailing shape that is expected.
        what: name of the argument, for messages.

    Raises:
        TypeError: it is no tensor of real floating-point numbers.
        ValueError: it has another trailing shape.
    """
    name = type(operator).__name__
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: {what} must be a floating-point torch tensor, got {got}; convert it with x.float()")
    if tuple(x.shape[max(0, x.ndim - len(shape)) :]) != shape:
        raise ValueError(f"{name}: {what} must have trailing shape {shape}, got shape {tuple(x.shape)}")
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
