"""Units: CT numbers (HU), linear attenuation (1/mm) and the value range of a diffusion prior.

All three are related by affine maps, ``y = scale * x + offset``. Every conversion of the package goes through this
module; the maps work on floats, NumPy arrays and torch tensors alike and are differentiable in torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Quantity = TypeVar("Quantity", float, NDArray[Any], Tensor)

HU_MIN = -1024.0
"""Lowest CT number of 12-bit CT; values below it are padding."""


def _as_floating(value: Quantity) -> Quantity:
    """Integers and half precision become float32 (half precision cannot hold a CT number to 1 HU)."""
    if isinstance(value, Tensor):
        return value if value.dtype in (torch.float32, torch.float64) else value.float()
    if isinstance(value, np.ndarray):
        return value if value.dtype in (np.float32, np.float64) else value.astype(np.float32)
    if isinstance(value, int | float | np.integer | np.floating):
        return float(value)
    raise TypeError(f"expected a float, a NumPy array or a torch tensor, got {type(value).__name__}")


@dataclass(frozen=True)
class AffineMap:
    """``y = scale * x + offset`` with an exact inverse.

    Args:
        scale: slope, finite and not zero.
        offset: value of the map at zero, finite.
    """

    scale: float
    offset: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.offset)) or self.scale == 0.0:
            raise ValueError(f"an affine map needs a finite, non-zero scale and a finite offset, got {self}")

    def __call__(self, x: Quantity) -> Quantity:
        """Apply the map; integers and half precision are computed and returned in float32."""
        return _as_floating(x) * self.scale + self.offset

    def inverse(self, y: Quantity) -> Quantity:
        """Solve ``scale * x + offset = y`` for ``x``."""
        return (_as_floating(y) - self.offset) / self.scale

    def after(self, inner: AffineMap) -> AffineMap:
        """The map ``x -> self(inner(x))``."""
        return AffineMap(self.scale * inner.scale, self.scale * inner.offset + self.offset)


@dataclass(frozen=True)
class HounsfieldScale:
    """The Hounsfield scale at one effective energy: ``mu = mu_water + HU * (mu_water - mu_air) / 1000``.

    The defaults are those of LoDoPaB-CT (Leuschner et al. 2021, doi:10.1038/s41597-021-00893-z): water 20 /m and air
    0.02 /m. ``mu_air=0`` gives the other common convention, ``mu = mu_water * (1 + HU / 1000)``.

    Args:
        mu_water: attenuation of water, 1/mm.
        mu_air: attenuation of air, 1/mm; must be below ``mu_water``.

    Raises:
        ValueError: not ``0 <= mu_air < mu_water``.
    """

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

    def after(self, prior_range: PriorRange) -> AffineMap:
        """The map from the range of a prior to attenuation in 1/mm."""
        return self.affine.after(prior_range.affine)


@dataclass(frozen=True)
class PriorRange:
    """The HU that a prior's -1 and +1 stand for; linear, and not clipped outside.

    Args:
        low_hu: CT number at -1.
        high_hu: CT number at +1.

    Raises:
        ValueError: the limits are not finite or not in increasing order.
    """

    low_hu: float = -1000.0
    high_hu: float = 1000.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low_hu) and math.isfinite(self.high_hu)) or self.low_hu >= self.high_hu:
            raise ValueError(f"expected finite low_hu < high_hu, got {self.low_hu} and {self.high_hu}")

    @property
    def scale(self) -> float:
        """HU per unit of the prior: ``HU = scale * x + offset``."""
        return 0.5 * (self.high_hu - self.low_hu)

    @property
    def offset(self) -> float:
        """HU at the prior's zero."""
        return 0.5 * (self.high_hu + self.low_hu)

    @property
    def affine(self) -> AffineMap:
        """The map from the prior's range to HU."""
        return AffineMap(self.scale, self.offset)

    def to_prior(self, hu: Quantity) -> Quantity:
        """Convert CT numbers (HU, any shape) to the prior's range, ``low_hu -> -1``, ``high_hu -> 1``."""
        return self.affine.inverse(hu)

    def to_hu(self, x: Quantity) -> Quantity:
        """Convert values of the prior (any shape) to CT numbers in HU."""
        return self.affine(x)
