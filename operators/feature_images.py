"""Images that an operator declares as the input of a network beside the gradient of the likelihood."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FeatureImage:
    """One image, of the shape of the domain, that tells a network about the data or about the operator.

    Args:
        name: what it shows, one word: ``"mask"``. A trained network asks for its images by their names.
        of_estimate: whether it belongs to an estimate of the image, see ``Operator.estimate_images``, or to the data
            alone, see ``Operator.data_images``.
        dimensionless: whether its values are plain numbers of order one, as a mask is. Others are values of the domain.
        absent: value that stands for it in a network for several operators where one of them does not declare it; a
            mask is then 1, as everything is observed. Of images in the prior's range.
    """

    name: str
    of_estimate: bool = False
    dimensionless: bool = False
    absent: float = 0.0
