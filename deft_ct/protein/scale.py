"""What the numbers of a backbone mean: angstrom, and the range of a prior of backbones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from deft_ct.measurement.scales import AffineMap, PriorRange, SampleSummary, Scale
from deft_ct.protein.ensemble import medoid, spread_about

SPREAD = 7.0
"""Standard deviation of a coordinate of compact chains of 50 to 128 residues, angstrom."""
BACKBONE_RANGE = PriorRange(-SPREAD, SPREAD)
"""Range of a prior of backbones, in which coordinates have unit variance. Velocity prediction is then the
preconditioning of Karras et al. 2022 (arXiv 2206.00364, table 1) with ``sigma_data = 1``."""


class Angstrom(Scale):
    """Coordinates in angstrom, the unit of operators on backbones, too."""

    unit: ClassVar[str] = "A"
    plausible: ClassVar[float] = 1000.0

    @property
    def affine(self) -> AffineMap:
        """The identity."""
        return AffineMap(1.0, 0.0)

    @property
    def background(self) -> float:
        """Zero: the centre of a chain."""
        return 0.0

    @property
    def mean_is_refused(self) -> str:
        """The mean of posed chains is no chain."""
        return "the mean of chains in any pose is not a chain: take the samples, for which their medoid stands"

    def summary(self, samples: Tensor) -> SampleSummary:
        """The medoid, and the spread after superposition on it; samples ``(B, S, N, 3)``."""
        best, deviations = medoid(samples)
        center = samples[torch.arange(len(samples)), best]
        return SampleSummary(
            chosen=best, std=spread_about(samples, center) if samples.shape[1] > 1 else None,
            record={"rule": "medoid", "samples": best.tolist(), "rmsd_from_it": deviations.tolist()},
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The unit."""
        return {"unit": self.unit}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Angstrom)

    def __hash__(self) -> int:
        return hash(self.unit)
