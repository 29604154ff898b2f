"""Operators that know the nearest image with given data."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Projecting(Protocol):
    """An operator with a projection onto the images that have its data."""

    def project(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The nearest image to ``x`` ``(..., *domain_shape)`` whose data are ``y``, by the sum of squares.

        Args:
            x: images.
            y: data; those that the operator has by itself where left out.
        """
        ...
