"""Geometry of chains of C-alpha atoms: what a backbone of a protein has, whatever its fold.

Coordinates are ``(..., N, 3)`` in angstrom, residues in order and without gaps. The ranges are those of
crystal structures; no energy is computed, and nothing here says that a sequence would fold into a chain.
"""

from __future__ import annotations

import torch
from torch import Tensor

TRANS_STEP, CIS_STEP = (3.6, 4.05), (2.7, 3.3)
"""Distances of neighbouring C-alpha atoms across a trans and a cis peptide bond, angstrom."""
CLASH_DISTANCE, CLASH_SEPARATION = 3.5, 3
"""Atoms of residues that are so many places apart or more do not come closer (angstrom)."""
RADIUS_FACTOR, RADIUS_EXPONENT = 2.2, 0.38
"""Radius of gyration of a globular protein of N residues: ``2.2 N**0.38`` angstrom (Skolnick et al. 1997)."""
HELIX_DIHEDRAL = (30.0, 80.0)
"""Dihedral angles of four C-alpha atoms in a right-handed alpha helix, degrees; a left-handed one has minus these."""
_HELIX_STEP_3 = (4.5, 6.5)


def steps(chain: Tensor) -> Tensor:
    """``(..., N - 1)`` distances of neighbouring residues, angstrom."""
    return (chain[..., 1:, :] - chain[..., :-1, :]).norm(dim=-1)


def valid_bonds(chain: Tensor) -> Tensor:
    """``(...)`` share of the steps whose length is that of a trans or a cis peptide bond."""
    length = steps(chain)
    valid = torch.zeros_like(length, dtype=torch.bool)
    for low, high in (TRANS_STEP, CIS_STEP):
        valid |= (length >= low) & (length <= high)
    return valid.to(chain.dtype).mean(-1)


def clashes(chain: Tensor) -> Tensor:
    """``(...)`` pairs of residues that are too close to each other, for each residue of the chain."""
    length = chain.shape[-2]
    first, second = torch.triu_indices(length, length, offset=CLASH_SEPARATION, device=chain.device)
    distance = (chain[..., first, :] - chain[..., second, :]).norm(dim=-1)
    return (distance < CLASH_DISTANCE).to(chain.dtype).sum(-1) / length


def radius_of_gyration(chain: Tensor) -> Tensor:
    """``(...)`` root mean square distance from the centre, angstrom."""
    return (chain - chain.mean(-2, keepdim=True)).square().sum(-1).mean(-1).sqrt()


def compactness(chain: Tensor) -> Tensor:
    """``(...)`` radius of gyration over that of a globular protein of this length; extended chains have more than 1."""
    return radius_of_gyration(chain) / (RADIUS_FACTOR * chain.shape[-2] ** RADIUS_EXPONENT)


def dihedrals(chain: Tensor) -> Tensor:
    """``(..., N - 3)`` dihedral angles of four successive residues, degrees in (-180, 180], IUPAC sign."""
    bond = chain[..., 1:, :] - chain[..., :-1, :]
    first, axis, last = bond[..., :-2, :], bond[..., 1:-1, :], bond[..., 2:, :]
    before, after = torch.linalg.cross(first, axis), torch.linalg.cross(axis, last)
    sine = (torch.linalg.cross(before, after) * axis).sum(-1) / axis.norm(dim=-1).clamp_min(1e-12)
    return torch.rad2deg(torch.atan2(sine, (before * after).sum(-1)))


def helix_hands(chain: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the turns of four residues that are those of a right-handed and of a left-handed alpha helix.

    A turn has the distance of an alpha helix between its ends and the dihedral angle of either hand. Proteins have
    right-handed helices; many left-handed ones are the sign of a model that does not know its mirror image.

    Returns:
        Two shares ``(...)``.
    """
    angle = dihedrals(chain)
    span = (chain[..., 3:, :] - chain[..., :-3, :]).norm(dim=-1)
    tight = (span >= _HELIX_STEP_3[0]) & (span <= _HELIX_STEP_3[1])
    low, high = HELIX_DIHEDRAL
    return tuple(
        (tight & (hand * angle >= low) & (hand * angle <= high)).to(chain.dtype).mean(-1) for hand in (1.0, -1.0)
    )


def junction_errors(chain: Tensor, ends: list[tuple[int, int]]) -> Tensor:
    """``(...)`` largest deviation of the steps into and out of segments from a trans peptide bond, angstrom.

    Args:
        chain: ``(..., N, 3)``.
        ends: first residue of each segment, and one more than its last; the ends of the chain have no junction.

    Returns:
        Zero where no segment has a junction.
    """
    length = steps(chain)
    places = sorted({place for start, stop in ends for place in (start - 1, stop - 1) if 0 <= place < length.shape[-1]})
    if not places:
        return chain.new_zeros(chain.shape[:-2])
    low, high = TRANS_STEP
    found = length[..., places]
    return torch.maximum(low - found, found - high).clamp_min(0).amax(-1)
