"""High dynamic range: an over-exposed, clipped image."""

from __future__ import annotations

import math

from torch import Tensor

from deft_ct.operators.base import Operator
from deft_ct.operators.image.value_range import ValueRange, check_range


class HDR(Operator):
    """``y = clip(gain * x, low, high)``; ``clip(2 x, -1, 1)`` in RED-diff, DAPS and DEFT.

    Args:
        image_shape: shape of the images without batch axes.
        gain: exposure factor.
        value_range: where to clip, ``(low, high)``.

    Raises:
        ValueError: ``gain`` is not positive, or the range is empty.
    """

    has_pseudo_inverse = True

    def __init__(
        self, image_shape: tuple[int, ...], gain: float = 2.0, *, value_range: ValueRange = (-1.0, 1.0)
    ) -> None:
        super().__init__(image_shape, image_shape)
        if not (math.isfinite(gain) and gain > 0):
            raise ValueError(f"HDR: gain must be a positive number, got {gain}")
        self.gain = float(gain)
        self.value_range = check_range("HDR", value_range)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return (self.gain * x).clamp(*self.value_range)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """``y / gain``: right where nothing was clipped."""
        return y / self.gain
