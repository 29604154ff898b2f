"""Order of the rows of data in which neighbouring rows belong together, for networks that convolve over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowOrder:
    """A permutation of the rows of data, some of them read backwards; :meth:`restore` undoes it to the bit.

    Args:
        rows: which row of the data comes at each place; a permutation of ``0, 1, ...``.
        backwards: whether the row at each place is read from its end.

    Raises:
        ValueError: ``rows`` is no permutation, or the two differ in length.
    """

    rows: tuple[int, ...]
    backwards: tuple[bool, ...]

    def __post_init__(self) -> None:
        if sorted(self.rows) != list(range(len(self.rows))) or len(self.rows) != len(self.backwards):
            raise ValueError("rows must be a permutation of 0, 1, ... with one entry of backwards for each")

    def arrange(self, y: Tensor) -> Tensor:
        """``(..., rows, columns)`` in this order."""
        return self._turned(y.index_select(-2, self._index(y)))

    def restore(self, y: Tensor) -> Tensor:
        """The inverse of :meth:`arrange`."""
        return self._turned(y).index_select(-2, torch.argsort(self._index(y)))

    def _index(self, y: Tensor) -> Tensor:
        return torch.tensor(self.rows, device=y.device)

    def _turned(self, y: Tensor) -> Tensor:
        if not any(self.backwards):
            return y
        return torch.where(torch.tensor(self.backwards, device=y.device)[:, None], y.flip(-1), y)
