"""Rounding with a straight-through derivative."""

from __future__ import annotations

from torch import Tensor


def round_straight_through(x: Tensor) -> Tensor:
    """Round to the nearest integer; the derivative is that of the identity (Bengio et al., arXiv:1308.3432).

    The true derivative is zero almost everywhere, which tells a gradient method nothing.
    """
    return x + (x.round() - x).detach()


def round_half_away(x: Tensor) -> Tensor:
    """As :func:`round_straight_through`, with halves rounded away from zero, as integer arithmetic does it."""
    return x + (x.sign() * (x.abs() + 0.5).floor() - x).detach()
