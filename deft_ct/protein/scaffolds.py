"""Geometric scores of a chain that shall carry a motif.

They say whether the chain has the geometry of a backbone and holds the motif. Whether a sequence folds into it
(designability) needs a structure predictor and is not asked here, so the scores cannot be compared with success rates
of methods that are judged by one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor

from deft_ct.operators.points.motif import Motif
from deft_ct.protein import geometry, secondary
from deft_ct.protein.contigs import Contig, SegmentPlaces

CLAIM = "geometric motif scaffolding with a small CA model; not comparable with success rates by structure prediction"
MOST_MOTIF_RMSD, MOST_JUNCTION_ERROR = 1.0, 0.2
LEAST_VALID_BONDS, MOST_CLASHES, COMPACTNESS = 0.95, 0.02, (0.85, 1.35)


@dataclass(frozen=True, kw_only=True)
class ScaffoldScores:
    """Scores of one chain; lengths in angstrom.

    Attributes:
        length: residues.
        motif_rmsd: of the motif's residues after superposition.
        junction_error: largest deviation of a step into or out of a segment from that of a peptide bond.
        valid_bonds: share of the steps whose length is that of a peptide bond.
        clashes: pairs of residues that are too close, for each residue.
        compactness: radius of gyration over that of a globular protein of this length.
        helix: share of the residues.
        strand: share of the residues.
        left_helix: share of turns that are those of a left-handed helix; proteins have next to none.
    """

    length: int
    motif_rmsd: float
    junction_error: float
    valid_bonds: float
    clashes: float
    compactness: float
    helix: float
    strand: float
    left_helix: float

    @property
    def well_formed(self) -> bool:
        """Whether the chain has the bonds, the room and the size of a globular backbone."""
        low, high = COMPACTNESS
        return self.valid_bonds > LEAST_VALID_BONDS and self.clashes <= MOST_CLASHES and low <= self.compactness <= high

    @property
    def solved(self) -> bool:
        """Whether a well-formed chain carries the motif, joined to it."""
        return self.well_formed and self.motif_rmsd < MOST_MOTIF_RMSD and self.junction_error < MOST_JUNCTION_ERROR

    def to_dict(self) -> dict[str, float | int | bool]:
        """All of it, for tables."""
        return asdict(self) | {"well_formed": self.well_formed, "solved": self.solved}


def placed_motif(contig: Contig, places: SegmentPlaces, template: Tensor) -> Motif:
    """The operator of a motif in its places in a chain; its segments are one rigid body.

    Args:
        contig: gives the sizes of the segments.
        places: of this contig.
        template: ``(M, 3)`` coordinates of all segments in their order, angstrom.

    Raises:
        ValueError: the motif has less than three residues, or they lie on one line.
    """
    residues = [r for start, stop in segment_ends(contig, places) for r in range(start, stop)]
    return Motif(places.length, residues, template)


def segment_ends(contig: Contig, places: SegmentPlaces) -> list[tuple[int, int]]:
    """First residue of each segment in the chain, and one more than its last."""
    return [(start, start + len(part)) for start, part in zip(places.starts, contig.segments, strict=True)]


def scores(chain: Tensor, motif: Motif, ends: list[tuple[int, int]]) -> ScaffoldScores:
    """Judge a chain ``(N, 3)`` in angstrom.

    Args:
        chain: the chain.
        motif: what it shall carry.
        ends: of the segments, see :func:`segment_ends`.
    """
    x = chain.detach().double().cpu()
    helix, strand = secondary.shares(x)
    return ScaffoldScores(
        length=len(x), motif_rmsd=float(motif.to("cpu").deviation(x[None])[0]),
        junction_error=float(geometry.junction_errors(x, ends)), valid_bonds=float(geometry.valid_bonds(x)),
        clashes=float(geometry.clashes(x)), compactness=float(geometry.compactness(x)), helix=float(helix),
        strand=float(strand), left_helix=float(geometry.helix_hands(x)[1]),
    )  # fmt: skip
