"""Quantisation: few grey levels."""

from __future__ import annotations

from torch import Tensor

from deft_ct.operators.base import Operator
from deft_ct.operators.image.rounding import round_straight_through
from deft_ct.operators.image.value_range import ValueRange, check_range, rescale


class Quantisation(Operator):
    """Round to ``2**bits`` equidistant levels that include both ends of the range; values outside are clipped.

    The vector-Jacobian product is straight-through: that of the clipping alone.

    Args:
        image_shape: shape of the images without batch axes.
        bits: number of bits, at least 1.
        value_range: range of ``x`` and ``y``.

    Raises:
        ValueError: ``bits`` is below 1, or the range is empty.
    """

    has_pseudo_inverse = True

    def __init__(self, image_shape: tuple[int, ...], bits: int = 2, *, value_range: ValueRange = (-1.0, 1.0)) -> None:
        super().__init__(image_shape, image_shape)
        if bits < 1:
            raise ValueError(f"Quantisation: bits must be at least 1, got {bits}")
        self.bits = int(bits)
        self.value_range = check_range("Quantisation", value_range)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        levels = (0.0, 2.0**self.bits - 1)
        scaled = rescale(x, self.value_range, levels).clamp(*levels)
        return rescale(round_straight_through(scaled), levels, self.value_range)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """``y`` itself: quantisation is idempotent."""
        return y
