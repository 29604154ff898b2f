"""What stands for several samples of one backbone: their medoid, and their spread after superposition.

Samples have any pose, and different folds have nothing in common: their mean is no chain, its bonds are far too short.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.operators.points.rigid import rotation_onto

_TIE = 1e-6
"""Sums of deviations that differ by this share are equal."""


def superposed(chains: Tensor, target: Tensor) -> Tensor:
    """Chains ``(..., N, 3)`` moved as rigid bodies, never mirrored, onto others of that shape; in double precision."""
    points, goal = torch.broadcast_tensors(chains.double(), target.double())
    center, end = points.mean(-2, keepdim=True), goal.mean(-2, keepdim=True)
    return (points - center) @ rotation_onto(points - center, goal - end) + end


def pairwise_rmsd(chains: Tensor) -> Tensor:
    """``(..., S, S)`` root mean square deviations of the C-alpha atoms of ``(..., S, N, 3)`` after superposition."""
    rows = []
    for k in range(chains.shape[-3]):  # row by row: all pairs at once would take much memory
        target = chains[..., k : k + 1, :, :]
        away = superposed(chains, target) - target.double()
        rows.append(away.square().sum(-1).mean(-1).sqrt())
    found = torch.stack(rows, -2)
    same = torch.eye(len(rows), dtype=torch.bool, device=chains.device)
    return found.masked_fill(same, 0.0)


def medoid(chains: Tensor) -> tuple[Tensor, Tensor]:
    """The sample that is closest to all others, by the sum of deviations; the first of equals.

    Args:
        chains: ``(..., S, N, 3)``.

    Returns:
        Its position among the samples, ``(...)``, and the deviations ``(..., S)`` of the samples from it, in the unit
        of the chains.
    """
    deviations = pairwise_rmsd(chains)
    sums = deviations.sum(-1)
    # Two samples are always equally far from each other: rounding must not pick one.
    equal = sums <= (1 + _TIE) * sums.amin(-1, keepdim=True)
    best = (equal & (equal.cumsum(-1) == 1)).int().argmax(-1)
    index = best[..., None, None].expand(*best.shape, 1, deviations.shape[-1])
    return best, deviations.gather(-2, index)[..., 0, :]


def spread_about(chains: Tensor, center: Tensor) -> Tensor:
    """Root mean square distance of each residue from its place in ``center``, after superposition.

    Args:
        chains: ``(..., S, N, 3)``, two samples or more.
        center: ``(..., N, 3)``.

    Returns:
        ``(..., N, 3)``: a third of the mean square distance for each coordinate, whose directions depend on the pose.
    """
    away = superposed(chains, center.unsqueeze(-3)) - center.unsqueeze(-3).double()
    square = away.square().sum(-1).sum(-2) / (chains.shape[-3] - 1)
    return (square / 3).sqrt()[..., None].expand(center.shape).to(chains.dtype).contiguous()
