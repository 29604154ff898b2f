"""What the values of an operator's images are like: defaults of methods that have a unit follow it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageValues:
    """The values of images before an operator; the defaults are those of images in [-1, 1].

    Args:
        contrast: the difference of two values that counts as one: 1 for images in [-1, 1], the attenuation of water
            (0.02 / mm) for CT. The strength of a penalty on differences is inverse to it, that of a penalty on their
            squares inverse to its square.
        nonnegative: whether values below zero have no meaning.

    Raises:
        ValueError: the contrast is not positive.
    """

    contrast: float = 1.0
    nonnegative: bool = False

    def __post_init__(self) -> None:
        if not self.contrast > 0:
            raise ValueError(f"ImageValues: contrast must be above 0, got {self.contrast}")


ATTENUATION = ImageValues(contrast=0.02, nonnegative=True)
"""Linear attenuation in 1/mm."""
