"""Scores of chains that shall carry a motif."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deft_ct.protein.contigs import Contig, SegmentPlaces
from deft_ct.protein.scaffolds import placed_motif, scores, segment_ends


def helix(count: int) -> Tensor:
    n = torch.arange(count, dtype=torch.float64)
    angle = torch.deg2rad(100.0 * n)
    return torch.stack([2.3 * angle.cos(), 2.3 * angle.sin(), 1.5 * n], -1)


CONTIG = Contig.parse("3-9,A1-4,5,B1-3,2-9")
PLACES = SegmentPlaces(17, (3, 12))


def test_segments_have_their_places() -> None:
    assert segment_ends(CONTIG, PLACES) == [(3, 7), (12, 15)]
    motif = placed_motif(CONTIG, PLACES, helix(17)[[3, 4, 5, 6, 12, 13, 14]])
    assert motif.indices.tolist() == [3, 4, 5, 6, 12, 13, 14] and motif.bodies == (7,)
    assert float(motif.deviation(helix(17)[None])) < 1e-6


def test_a_good_chain_is_solved_and_each_fault_is_seen() -> None:
    chain = helix(17)
    motif = placed_motif(CONTIG, PLACES, chain[motif_rows()])
    found = scores(chain, motif, segment_ends(CONTIG, PLACES))
    assert found.motif_rmsd < 1e-6 and found.junction_error == 0 and found.valid_bonds == 1 and found.clashes == 0
    assert found.helix > 0.8 and found.strand == 0 and found.left_helix == 0 and found.length == 17
    good = replace(found, compactness=1.0)
    assert good.solved and good.to_dict()["solved"] is True
    for change in ({"motif_rmsd": 1.1}, {"junction_error": 0.3}):
        assert not replace(good, **change).solved and replace(good, **change).well_formed
    for change in ({"valid_bonds": 0.95}, {"clashes": 0.03}, {"compactness": 0.8}, {"compactness": 1.4}):
        assert not replace(good, **change).well_formed and not replace(good, **change).solved


def test_a_moved_motif_and_a_mirror_image_are_seen() -> None:
    chain = helix(17)
    motif = placed_motif(CONTIG, PLACES, chain[motif_rows()])
    ends = segment_ends(CONTIG, PLACES)
    broken = chain.clone()
    broken[7:] += torch.tensor([0.0, 0.0, 1.0])
    found = scores(broken, motif, ends)
    assert found.motif_rmsd > 0.3 and found.junction_error == pytest.approx(
        float((broken[7] - broken[6]).norm()) - 4.05
    )
    mirror = scores(chain * torch.tensor([1.0, 1.0, -1.0]), motif, ends)
    assert mirror.motif_rmsd > 0.5 and mirror.left_helix > 0.9 and mirror.helix == 0


def motif_rows() -> list[int]:
    return [3, 4, 5, 6, 12, 13, 14]
