"""The Hounsfield scale: conversions between CT numbers and linear attenuation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deft_ct.measurement.scales import AffineMap, Quantity, Scale
from deft_ct.operators.image_values import ATTENUATION, ImageValues

HU_MIN = -1024.0
"""Lowest CT number of 12-bit CT; values below it are padding."""


@dataclass(frozen=True)
class HounsfieldScale(Scale):
    """The Hounsfield scale at one effective energy: ``mu = mu_water + HU * (mu_water - mu_air) / 1000``.

    The defaults come from LoDoPaB-CT (Leuschner et al. 2021, doi:10.1038/s41597-021-00893-z): water 20 /m and air
    0.02 /m. ``mu_air=0`` gives the other common convention, ``mu = mu_water * (1 + HU / 1000)``.

    Args:
        mu_water: attenuation of water, 1/mm.
        mu_air: attenuation of air, 1/mm; must be below ``mu_water``.

    Raises:
        ValueError: not ``0 <= mu_air < mu_water``.
    """

    unit: ClassVar[str] = "HU"
    plausible: ClassVar[float] = 1e5  # metal has some 1e4 HU, and noise that reaches 1e5 leaves nothing to see

    mu_water: float = 0.02
    mu_air: float = 0.00002

    def __post_init__(self) -> None:
        if not 0.0 <= self.mu_air < self.mu_water < math.inf:
            raise ValueError(
                f"expected 0 <= mu_air < mu_water in 1/mm (water is about 0.02), got mu_air={self.mu_air}, "
                f"mu_water={self.mu_water}; were they given in 1/cm or 1/m?"
            )

    @property
    def scale(self) -> float:
        """Attenuation per HU, 1/mm: ``mu = scale * HU + offset``."""
        return (self.mu_water - self.mu_air) / 1000.0

    @property
    def offset(self) -> float:
        """Attenuation at 0 HU, 1/mm."""
        return self.mu_water

    @property
    def affine(self) -> AffineMap:
        """The map from HU to 1/mm."""
        return AffineMap(self.scale, self.offset)

    def to_attenuation(self, hu: Quantity) -> Quantity:
        """Convert CT numbers (HU, any shape) to linear attenuation (1/mm, same shape); nothing is clipped."""
        return self.affine(hu)

    def to_hu(self, mu: Quantity) -> Quantity:
        """Convert linear attenuation (1/mm, any shape) to CT numbers (HU, same shape)."""
        return self.affine.inverse(mu)

    @property
    def image_values(self) -> ImageValues:
        """Attenuation in 1/mm."""
        return ATTENUATION

    @property
    def background(self) -> float:
        """CT number of a place without attenuation, but at least -1000 HU."""
        return max(self.to_hu(0.0), -1000.0)

    def to_dict(self) -> dict[str, Any]:
        """The two attenuations in 1/mm."""
        return {"mu_water_per_mm": self.mu_water, "mu_air_per_mm": self.mu_air}


def storable_hu(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """CT numbers as every file of a result holds them, DICOM, NIfTI and the pages: nothing lies below -1024 HU."""
    found: NDArray[np.float32] = np.maximum(hu, np.float32(HU_MIN))
    return found
