"""A tensor subclass with the pitfalls of MONAI's MetaTensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def _sized(size: Any, extra: tuple[Any, ...]) -> Any:
    if extra or not isinstance(size, Sequence):
        raise TypeError(f"the size must be one tuple, got {(size, *extra)}")
    return size


class StrictTensor(Tensor):
    """Takes the size of new tensors as one tuple only, as MetaTensor does."""

    def new_empty(self, size: Any, *extra: Any, **keywords: Any) -> Tensor:  # type: ignore[override]
        """As ``Tensor.new_empty``."""
        return super().new_empty(_sized(size, extra), **keywords)

    def new_zeros(self, size: Any, *extra: Any, **keywords: Any) -> Tensor:  # type: ignore[override]
        """As ``Tensor.new_zeros``."""
        return super().new_zeros(_sized(size, extra), **keywords)

    def new_ones(self, size: Any, *extra: Any, **keywords: Any) -> Tensor:  # type: ignore[override]
        """As ``Tensor.new_ones``."""
        return super().new_ones(_sized(size, extra), **keywords)
