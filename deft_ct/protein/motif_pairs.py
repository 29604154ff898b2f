"""Training pairs of motif scaffolding: chains, each with a part of itself as the motif."""

from __future__ import annotations

from typing import Any

import torch

from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.noise import GaussianNoise
from deft_ct.operators.points.motif import Motif
from deft_ct.protein.pose import posed
from deft_ct.protein.scale import BACKBONE_RANGE, Angstrom
from deft_ct.training.pairs import Pairs, PairSource, TrainingSource

SHORTEST_MOTIF, LONGEST_MOTIF = 10, 30
"""Residues of a motif; at most a third of the chain."""
FREE_ENDS = 5
"""Residues at either end of a chain that belong to no motif."""


class MotifPairs(PairSource):
    """Draws chains and the motifs that they carry.

    All chains of a draw have their motif at the same residues, drawn anew each time: one segment, by the rule of the
    motif problems of the data set. The data of a chain are its own residues there, without their pose.

    Args:
        source: chains, see :class:`~deft_ct.datasets.backbones.ChainSets`.
        tolerance: standard deviation of the data, angstrom.
    """

    def __init__(self, source: TrainingSource, tolerance: float) -> None:
        self.tolerance = tolerance
        example = torch.eye(3)
        super().__init__(source, [self._measurement(3, 0, example)], BACKBONE_RANGE, augment=posed)

    def _measurement(self, length: int, start: int, template: torch.Tensor) -> Measurement:
        residues = list(range(start, start + len(template)))
        return Measurement(Motif(length, residues, template), GaussianNoise(self.tolerance), units=Angstrom())

    def description(self) -> dict[str, Any]:
        """All that the pairs depend on, JSON-ready; chains by their content."""
        rule = {"shortest": SHORTEST_MOTIF, "longest": LONGEST_MOTIF, "ends": FREE_ENDS, "tolerance": self.tolerance}
        return super().description() | {"scans": [rule]}

    def seeded(self, indices: torch.Tensor, seed: int, device: torch.device | str = "cpu") -> Pairs:
        """Pairs from a number, see :meth:`~deft_ct.training.pairs.PairSource.seeded`."""
        host = torch.Generator().manual_seed(seed)
        chains = self.augment(self.source.batch(indices), host)
        start, stop = random_segment(chains.shape[1], host)
        measurement = self._measurement(chains.shape[1], start, chains[0, start:stop])
        return self.simulate(chains.to(device), indices, measurement, seed)


def random_segment(length: int, generator: torch.Generator) -> tuple[int, int]:
    """First residue of a motif in a chain, and one more than its last.

    Args:
        length: residues of the chain, 9 or more.
        generator: on the CPU.
    """
    longest = min(LONGEST_MOTIF, length // 3)
    size = int(torch.randint(min(SHORTEST_MOTIF, longest), longest + 1, (1,), generator=generator))
    ends = min(FREE_ENDS, (length - size) // 2)
    start = int(torch.randint(ends, length - ends - size + 1, (1,), generator=generator))
    return start, start + size
