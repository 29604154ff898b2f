"""Selection: some of the points are observed, the others are unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deft_ct.operators.subset import Subset


class Selection(Subset):
    """The rows ``indices`` of a point set, ``(N, 3) -> (M, 3)``, in the order of the indices.

    Args:
        length: number of points ``N``.
        indices: the observed points, each in ``0 ... N - 1`` and at most once.

    Raises:
        TypeError: an index is not an integer.
        ValueError: no index, an index out of range, or one that occurs twice.
    """

    axis = -2

    def __init__(self, length: int, indices: Sequence[int] | Tensor) -> None:
        chosen = torch.as_tensor(indices)
        if not chosen.numel():
            raise ValueError("Selection: indices are empty; name at least one point")
        if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
            raise TypeError(
                f"Selection: indices must be integers, got {chosen.dtype}. Turn a mask into indices with "
                "mask.nonzero().flatten()"
            )
        if chosen.ndim != 1:
            raise ValueError(f"Selection: indices must be one-dimensional, got shape {tuple(chosen.shape)}")
        outside = chosen[(chosen < 0) | (chosen >= length)].tolist()
        if outside:
            raise ValueError(f"Selection: indices must be in 0 ... {length - 1}, got {outside[0]}")
        values, counts = chosen.unique(return_counts=True)
        if len(values) < len(chosen):
            raise ValueError(f"Selection: each point may be chosen once, but {int(values[counts > 1][0])} occurs twice")
        super().__init__((length, 3), (len(chosen), 3))
        self.register_buffer("indices", chosen.to(torch.int64).clone())

    @property
    def length(self) -> int:
        """Number of points, observed or not."""
        return self.domain_shape[0]

    def analyse(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        return x

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """The coefficients themselves."""
        return coefficients
