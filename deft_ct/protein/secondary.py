"""Helices and strands of a chain from its C-alpha atoms alone.

DSSP (Kabsch and Sander 1983) finds them by hydrogen bonds, which need the other atoms of the backbone. Here they are
found by the distances and angles that hydrogen bonds leave in the C-alpha trace, as Labesse et al. 1997 (CABIOS 13,
291, "P-SEA") do; the thresholds are our own. A left-handed helix is none.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from deft_ct.protein.geometry import HELIX_DIHEDRAL, dihedrals

LETTERS = "CHE"
"""Coil, helix, strand, by the numbers of :func:`secondary_structure`."""
COIL, HELIX, STRAND = range(3)
_HELIX_SPAN = (4.2, 6.6)
_STRAND_SPANS = ((2, 6.0), (3, 9.0))
"""Least distances of residues so many places apart in a strand, angstrom."""
_PARTNER = 5.5
"""Largest distance of residues side by side in two strands of a sheet, and of their neighbours, angstrom."""
_PARTNER_SEPARATION = 4


def secondary_structure(chain: Tensor) -> Tensor:
    """Coil, helix or strand of each residue.

    A helix is made of successive right-handed turns of four residues with the span and the dihedral angle of an alpha
    helix; one turn alone is none. A strand is extended, and runs side by side with another part of the chain, in either
    direction, for three residues.

    Args:
        chain: ``(..., N, 3)`` in angstrom, ``N >= 5``.

    Returns:
        int64 ``(..., N)``: 0 coil, 1 helix, 2 strand, see :data:`LETTERS`.
    """
    helix = _helix(chain)
    strand = _strand(chain) & ~helix
    out = torch.zeros(chain.shape[:-1], dtype=torch.int64, device=chain.device)
    return out.masked_fill(helix, HELIX).masked_fill(strand, STRAND)


def letters(codes: Tensor) -> str:
    """The numbers of one chain, ``(N,)``, as text of H, E and C."""
    return "".join(LETTERS[k] for k in codes.tolist())


def shares(chain: Tensor) -> tuple[Tensor, Tensor]:
    """Shares ``(...)`` of the residues of chains ``(..., N, 3)`` that are in helices and in strands."""
    codes = secondary_structure(chain)
    return (codes == HELIX).to(chain.dtype).mean(-1), (codes == STRAND).to(chain.dtype).mean(-1)


def _helix(chain: Tensor) -> Tensor:
    span = (chain[..., 3:, :] - chain[..., :-3, :]).norm(dim=-1)
    angle = dihedrals(chain)
    turn = (span >= _HELIX_SPAN[0]) & (span <= _HELIX_SPAN[1])
    turn &= (angle >= HELIX_DIHEDRAL[0] - 10) & (angle <= HELIX_DIHEDRAL[1])
    pair = turn[..., 1:] & turn[..., :-1]  # five residues whose middle three are hydrogen-bonded on one side at least
    found = torch.zeros(chain.shape[:-1], dtype=torch.bool, device=chain.device)
    for k in range(1, 4):
        found[..., k : k + pair.shape[-1]] |= pair
    return found


def _strand(chain: Tensor) -> Tensor:
    n = chain.shape[-2]
    extended = torch.zeros(chain.shape[:-1], dtype=torch.bool, device=chain.device)
    spans = [(chain[..., k:, :] - chain[..., :-k, :]).norm(dim=-1) >= least for k, least in _STRAND_SPANS]
    long = spans[1] & spans[0][..., :-1] & spans[0][..., 1:]
    for k in range(4):
        extended[..., k : k + long.shape[-1]] |= long
    near = torch.cdist(chain, chain) < _PARTNER
    index = torch.arange(n, device=chain.device)
    near &= (index[:, None] - index).abs() >= _PARTNER_SEPARATION
    wide = functional.pad(near, (1, 1, 1, 1))
    # Places (i, j) whose neighbours (i - 1, j - 1) and (i + 1, j + 1), or (i - 1, j + 1) and (i + 1, j - 1), are near.
    along = wide[..., :-2, :-2] & wide[..., 2:, 2:]
    against = wide[..., :-2, 2:] & wide[..., 2:, :-2]
    ladder = near & (along | against)
    beside = ladder & extended[..., :, None] & extended[..., None, :]
    middle = beside.any(-1)
    sides = functional.pad(middle, (1, 1))
    return extended & (middle | sides[..., :-2] | sides[..., 2:])
