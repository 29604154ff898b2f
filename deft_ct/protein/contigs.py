"""Contigs: where the segments of a motif go in a chain, in the notation of RFdiffusion (Watson et al. 2023).

``10-40,A163-181,10-40`` is a scaffold of 10 to 40 residues, the residues 163 to 181 of chain A, and 10 to 40 more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_PART = re.compile(r"([A-Za-z]?)(\d{1,5})(?:-(\d{1,5}))?")


@dataclass(frozen=True)
class Segment:
    """Residues of the motif that follow each other.

    Attributes:
        chain: name of the chain, one letter.
        first: number of the first residue, as in the file.
        last: number of the last one.
    """

    chain: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.chain}{self.first}-{self.last}"


@dataclass(frozen=True)
class SegmentPlaces:
    """A chain in which each segment has its place.

    Attributes:
        length: residues of the chain.
        starts: first residue of each segment, counted from 0.
    """

    length: int
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Contig:
    """Gaps of free residues around segments of a motif.

    Attributes:
        gaps: fewest and most residues before, between and after the segments; one more than there are segments.
        segments: of the motif, in order.
    """

    gaps: tuple[tuple[int, int], ...]
    segments: tuple[Segment, ...]

    @classmethod
    def parse(cls, text: str) -> Contig:
        """Read the notation.

        Raises:
            ValueError: it is none, has no segment, or runs backwards.
        """
        gaps, segments = [(0, 0)], list[Segment]()
        for part in text.replace(" ", "").split(","):
            found = _PART.fullmatch(part)
            if not found:
                raise ValueError(
                    f"contig {text!r}: {part!r} is neither a number of residues such as 10-40 nor a segment such as "
                    "A163-181"
                )
            chain, first, last = found[1], int(found[2]), int(found[3] or found[2])
            if last < first:
                raise ValueError(f"contig {text!r}: {part!r} ends before it begins")
            if chain:
                segments.append(Segment(chain, first, last))
                gaps.append((0, 0))
            else:
                gaps[-1] = gaps[-1][0] + first, gaps[-1][1] + last
        if not segments:
            raise ValueError(f"contig {text!r} has no segment of a motif, such as A163-181")
        return cls(tuple(gaps), tuple(segments))

    @property
    def motif_length(self) -> int:
        """Residues of all segments."""
        return sum(map(len, self.segments))

    @property
    def lengths(self) -> tuple[int, int]:
        """Fewest and most residues of the chain."""
        return (
            self.motif_length + sum(low for low, _ in self.gaps), self.motif_length + sum(high for _, high in self.gaps)
        )  # fmt: skip

    def place(self, generator: torch.Generator, length: tuple[int, int] | None = None) -> SegmentPlaces:
        """Draw the sizes of the gaps, each choice that gives an allowed length being equally likely.

        Args:
            generator: source of the sizes.
            length: fewest and most residues of the chain; as the gaps allow if left out.

        Raises:
            ValueError: no choice gives such a length.
        """
        low, high = self.lengths
        low, high = (low, high) if length is None else (max(low, length[0]), min(high, length[1]))
        if low > high:
            raise ValueError(
                f"no chain of {length} residues fits the contig, which gives {self.lengths[0]} to {self.lengths[1]}"
            )
        sizes = self._draw(low - self.motif_length, high - self.motif_length, generator)
        starts, at = [], 0
        for gap, segment in zip(sizes, self.segments, strict=False):
            at += gap
            starts.append(at)
            at += len(segment)
        return SegmentPlaces(at + sizes[-1], tuple(starts))

    def _draw(self, low: int, high: int, generator: torch.Generator) -> list[int]:
        """Sizes of the gaps whose sum is from ``low`` to ``high``, uniform over all such choices."""
        # ways[k][s]: choices of the gaps k, k + 1, ... whose sum is s.
        ways = [[1.0] + [0.0] * high]
        for least, most in reversed(self.gaps):
            after = ways[0]
            ways.insert(0, [sum(after[s - g] for g in range(least, min(most, s) + 1)) for s in range(high + 1)])
        total = low + _pick(ways[0][low : high + 1], generator)
        sizes = []
        for (least, most), after in zip(self.gaps, ways[1:], strict=True):
            choices = range(least, min(most, total) + 1)
            sizes.append(least + _pick([after[total - g] for g in choices], generator))
            total -= sizes[-1]
        return sizes

    def __str__(self) -> str:
        parts = []
        for (low, high), segment in zip(self.gaps, [*self.segments, None], strict=True):
            parts += ([f"{low}-{high}"] if high else []) + ([str(segment)] if segment else [])
        return ",".join(parts)


def _pick(weights: Sequence[float], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=generator))
