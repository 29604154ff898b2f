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


class CorrelatedGenerator(torch.Generator):
    """A generator whose normal numbers are correlated with those of other images.

    :func:`normal_like` adds a share of common numbers to its own, in proportions that keep the variance at one: the
    correlation of two images with the same common numbers is the share. All else is drawn from its own numbers.

    Attributes:
        common: the numbers that others draw, too.
        share: of the variance, 0 to 1.
    """

    common: torch.Generator
    share: float


def correlated_generator(own: torch.Generator, common: torch.Generator, share: float) -> CorrelatedGenerator:
    """A generator that continues ``own``, correlated with all others of the same ``common`` numbers.

    Args:
        own: of one image.
        common: another generator with the same seed for each image.
        share: of the variance that is common, 0 to 1.
    """
    made = CorrelatedGenerator()
    made.set_state(own.get_state())
    made.common, made.share = common, share
    return made


def normal_like(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal numbers of the shape of ``x``, image ``i`` drawn from ``generators[i]``.

    Raises:
        ValueError: there is not one generator for each image.
    """
    if len(generators) != len(x):
        raise ValueError(f"need one generator for each of the {len(x)} images, got {len(generators)}")
    return torch.stack([_normal(x.shape[1:], g) for g in generators]).to(device=x.device, dtype=x.dtype)


def _normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(shape, generator=generator, dtype=torch.float32, device=generator.device)
    if not isinstance(generator, CorrelatedGenerator):
        return drawn
    share = generator.share
    return (1 - share) ** 0.5 * drawn + share**0.5 * _normal(shape, generator.common)


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
