"""Random poses of chains for the training of a prior."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.protein.scale import SPREAD
from deft_ct.training.augment import rotated


def posed(chains: Tensor, generator: torch.Generator) -> Tensor:
    """Chains of one length in random poses.

    Each chain is cut to the length of the shortest one, from a random residue on, and turned at random. Its centre is
    normal with the variance ``SPREAD**2 / N``. In this measure of poses, the centre of a noisy chain tells nothing
    that its velocity needs, so a network may leave centres out (:mod:`deft_ct.networks.backbone`).

    Args:
        chains: ``(B, N, 3)`` in angstrom; NaN from the end of a chain on.
        generator: on the CPU.

    Returns:
        ``(B, shortest, 3)``.
    """
    lengths = torch.isfinite(chains[..., 0]).sum(1)
    shortest = int(lengths.min())
    starts = (torch.rand(len(chains), generator=generator) * (lengths - shortest + 1)).long()
    cut = torch.stack([chain[start : start + shortest] for chain, start in zip(chains, starts.tolist(), strict=True)])
    centre = torch.randn(len(cut), 1, 3, generator=generator) * SPREAD / shortest**0.5
    return rotated(cut - cut.mean(1, keepdim=True), generator) + centre.to(cut)
