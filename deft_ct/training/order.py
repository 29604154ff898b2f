"""Order of the training items and seeds, as functions of (seed, step, part) alone."""

from __future__ import annotations

import torch
from torch import Tensor


def item_order(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """The items of one step: passes over a permutation that depends on (seed, pass) alone.

    Args:
        count: number of items.
        batch_size: items of a step.
        step: counted from 0.
        seed: of the order.

    Returns:
        int64 ``(batch_size,)``.
    """
    out: list[Tensor] = []
    position, needed = step * batch_size, batch_size
    while needed:
        epoch, offset = divmod(position, count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(mixed_seed(seed, epoch, 1)))
        part = order[offset : offset + needed]
        out.append(part)
        position, needed = position + len(part), needed - len(part)
    return torch.cat(out)


def mixed_seed(*values: int) -> int:
    """A 63-bit seed from several integers, without collisions between neighbours (splitmix64)."""
    state = 0
    for value in values:
        state = (state + value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
