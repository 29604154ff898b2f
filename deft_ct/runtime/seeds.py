"""Random seeds that belong to images, so that a result never depends on batch size, order or resumption."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Key = int | str


def derive_seed(seed: int, *parts: Key) -> int:
    """A 63-bit seed from a user's seed and any number of names or indices (SHA-256).

    Args:
        seed: the user's seed.
        parts: what the random numbers are for, for example a SOPInstanceUID and the index of a sample.
    """
    text = "\x1f".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *parts: Key) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`: the same numbers on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, *parts))


def normal_like(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal numbers of the shape of ``x``, image ``i`` drawn from ``generators[i]``.

    Raises:
        ValueError: there is not one generator for each image.
    """
    if len(generators) != len(x):
        raise ValueError(f"need one generator for each of the {len(x)} images, got {len(generators)}")
    drawn = [torch.randn(x.shape[1:], generator=g, dtype=torch.float32, device=g.device) for g in generators]
    return torch.stack(drawn).to(device=x.device, dtype=x.dtype)


def checked_image_ids(count: int, image_ids: Sequence[Key] | None) -> list[Key]:
    """One id for each image: those given, or the positions ``0 .. count - 1``.

    Raises:
        ValueError: the number of ids is wrong, or an id occurs twice.
    """
    if image_ids is None:
        return list(range(count))
    if len(image_ids) != count or len(set(image_ids)) != count:
        raise ValueError(f"need {count} different image ids, got {len(set(image_ids))} different ones")
    return list(image_ids)
