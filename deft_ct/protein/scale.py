"""What the numbers of a backbone mean: angstrom, and the range of a prior of backbones."""

from __future__ import annotations

from typing import Any, ClassVar

from deft_ct.measurement.scales import AffineMap, PriorRange, Scale

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

    def to_dict(self) -> dict[str, Any]:
        """The unit."""
        return {"unit": self.unit}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Angstrom)

    def __hash__(self) -> int:
        return hash(self.unit)
