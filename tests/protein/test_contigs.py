"""Contigs, against all choices written out."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch

from deft_ct.protein.contigs import Contig, Segment, SegmentPlaces


def test_the_notation() -> None:
    contig = Contig.parse("10-40, A163-181,5,B7,0-3")
    assert contig.gaps == ((10, 40), (5, 5), (0, 3))
    assert contig.segments == (Segment("A", 163, 181), Segment("B", 7, 7))
    assert contig.motif_length == 20 and contig.lengths == (35, 68)
    assert str(contig) == "10-40,A163-181,5-5,B7-7,0-3" and Contig.parse(str(contig)) == contig
    assert Contig.parse("A1-3,A5-9").gaps == ((0, 0), (0, 0), (0, 0))
    assert str(Contig.parse("2-3,4,A1-3")) == "6-7,A1-3"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is neither a number"), ("10-40", "no segment of a motif"), ("A9-3", "'A9-3' ends before it begins"),
        ("10-40,A1-3,", "'' is neither"), ("AB1-3", "'AB1-3' is neither"), ("A1-", "'A1-' is neither"),
        ("-5,A1", "'-5' is neither"), ("5-2,A1", "'5-2' ends before"), ("A123456", "is neither"),
    ],
)  # fmt: skip
def test_what_is_no_contig(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Contig.parse(text)


def test_placements_are_uniform_over_all_choices_of_an_allowed_length() -> None:
    contig = Contig.parse("0-2,A1-3,1-3,A9,0-1")
    allowed = {
        SegmentPlaces(4 + a + b + c, (a, a + 3 + b))
        for a, b, c in product(range(3), range(1, 4), range(2)) if a + b + c <= 4
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(contig.place(generator, (0, 8)) for _ in range(3000))
    assert set(drawn) == allowed
    expected = 3000 / len(allowed)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in drawn.values())


def test_a_length_that_does_not_fit_is_refused() -> None:
    contig = Contig.parse("1-2,A1-3,1-2")
    for length in ((1, 4), (8, 20)):
        with pytest.raises(ValueError, match=r"no chain of .* residues fits the contig, which gives 5 to 7"):
            contig.place(torch.Generator(), length)
    assert contig.place(torch.Generator(), (7, 7)) == SegmentPlaces(7, (2,))
    assert contig.place(torch.Generator(), (5, 5)) == SegmentPlaces(5, (1,))
    again = [contig.place(torch.Generator().manual_seed(3)) for _ in range(2)]
    assert again[0] == again[1] and 5 <= again[0].length <= 7
