"""Maps between value ranges: a prior's own, the unit that people read, and the physical values of an operator.

All are affine, ``y = scale * x + offset``. The maps work on floats, NumPy arrays and torch tensors alike and are
differentiable in torch.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.operators.image_values import ImageValues

Quantity = TypeVar("Quantity", float, NDArray[Any], Tensor)


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


@dataclass(frozen=True, kw_only=True)
class SampleSummary:
    """What stands for the samples of a domain without means.

    Attributes:
        chosen: ``(B,)`` the sample that stands for all of each image.
        std: ``(B, *image_shape)`` the spread of the samples about it; None for a single sample.
        record: JSON-ready: the rule, and what it found.
    """

    chosen: Tensor
    std: Tensor | None
    record: dict[str, Any]


class Scale(abc.ABC):
    """What the numbers of a domain mean: the unit that people read, and its map to the physical values of an operator.

    Attributes:
        unit: name of the unit, for example ``"HU"``.
        plausible: largest magnitude in this unit that an image can have; beyond it a method has diverged.
    """

    unit: ClassVar[str]
    plausible: ClassVar[float]

    @property
    @abc.abstractmethod
    def affine(self) -> AffineMap:
        """The map from the unit to physical values."""

    @property
    def image_values(self) -> ImageValues:
        """What physical values are like; a step of the contrast is one unit unless a subclass says otherwise."""
        return ImageValues(contrast=abs(self.affine.scale))

    @property
    @abc.abstractmethod
    def background(self) -> float:
        """Value, in the unit, of what surrounds the object; fills images where nothing is known."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready parameters, for run records."""

    @property
    def mean_is_refused(self) -> str | None:
        """Why the mean of samples is no answer in this domain; None where it is one, as for images."""
        return None

    def summary(self, samples: Tensor) -> SampleSummary | None:
        """What stands for samples in a domain where their mean does not; None for their mean and spread.

        Args:
            samples: ``(B, S, *image_shape)`` in physical units.
        """
        return None

    def after(self, prior_range: PriorRange) -> AffineMap:
        """The map from the range of a prior to physical values."""
        return self.affine.after(prior_range.affine)


@dataclass(frozen=True)
class PriorRange:
    """The values, in the unit of a scale, that a prior's -1 and +1 stand for; linear, and not clipped outside.

    Args:
        low: value at -1; -1000 HU (air) by default.
        high: value at +1; 1000 HU by default.

    Raises:
        ValueError: the limits are not finite or not in increasing order.
    """

    low: float = -1000.0
    high: float = 1000.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low >= self.high:
            raise ValueError(f"expected finite low < high, got {self.low} and {self.high}")

    @property
    def scale(self) -> float:
        """Unit steps per step of the prior: ``value = scale * x + offset``."""
        return 0.5 * (self.high - self.low)

    @property
    def offset(self) -> float:
        """Value at the prior's zero."""
        return 0.5 * (self.high + self.low)

    @property
    def affine(self) -> AffineMap:
        """The map from the prior's range to the unit of the scale."""
        return AffineMap(self.scale, self.offset)

    def to_prior(self, values: Quantity) -> Quantity:
        """Convert values in the unit of the scale (any shape) to the prior's range, ``low -> -1``, ``high -> 1``."""
        return self.affine.inverse(values)

    def from_prior(self, x: Quantity) -> Quantity:
        """Convert values of the prior (any shape) to the unit of the scale."""
        return self.affine(x)


class PerImageMap:
    """``y = scale * x + offset`` with a scale and an offset for each image of a batch, ``(B, 1, 1, 1)`` each."""

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        self.scale = scale
        self.offset = offset

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the map to ``(B, C, H, W)``."""
        return self.scale * x + self.offset

    def inverse(self, y: Tensor) -> Tensor:
        """Solve for ``x``."""
        return (y - self.offset) / self.scale
