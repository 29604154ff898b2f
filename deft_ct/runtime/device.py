"""Devices of PyTorch by name, checked before anything is moved to them."""

from __future__ import annotations

import torch


def check_device(name: str) -> str:
    """Return the name of a device that can compute here.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Raises:
        ValueError: there is no such device.
    """
    usual = "use cpu, cuda or cuda:1"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"unknown device {name!r}: {usual}") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ValueError(f"device {name} was asked for, but torch sees no CUDA device; use cpu")
        if device.index is not None and device.index >= count:
            raise ValueError(f"device {name} was asked for, and torch sees {count}: the last one is cuda:{count - 1}")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name} was asked for, but torch sees no Metal device; use cpu")
    elif device.type not in ("cpu", "mps"):
        raise ValueError(f"deft-ct does not compute on device {name!r}: {usual}")
    return name
