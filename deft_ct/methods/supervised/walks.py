"""Several samples of each image, a few at a time, each with its own generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deft_ct.reconstruction import Request
from deft_ct.runtime.seeds import generator_for


def walk_samples(
    name: str,
    reference: Tensor,
    request: Request,
    walk: Callable[[Tensor, list[torch.Generator]], Tensor],
    *,
    batch_size: int,
    tick: Callable[[int], None],
) -> Tensor:
    """Draw ``request.num_samples`` samples of every image.

    Args:
        name: of the method; part of every seed.
        reference: ``(B, 1, H, W)``, the quick reconstruction that each sample is conditioned on.
        request: gives seed, keys and number of samples.
        walk: maps quick reconstructions ``(b, 1, H, W)``, with one generator for each, to samples of that shape.
        batch_size: samples at once.
        tick: called with the number of finished samples.

    Returns:
        ``(B, S, 1, H, W)``.
    """
    count = request.num_samples
    names = [(key, k) for key in request.image_ids for k in range(count)]
    repeated = reference.repeat_interleave(count, 0)
    parts = []
    for start in range(0, len(names), batch_size):
        chosen = names[start : start + batch_size]
        generators = [generator_for(request.seed, name, key, k) for key, k in chosen]
        parts.append(walk(repeated[start : start + batch_size], generators))
        tick(len(chosen))
    return torch.cat(parts).reshape(len(reference), count, *reference.shape[1:])
