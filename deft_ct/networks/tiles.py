"""A network on images applied to overlapping tiles: large images at the size that it was trained for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class TiledNetwork(nn.Module):
    """Applies a network to overlapping tiles of an image and blends the answers.

    Attention and normalisation of a network depend on the size of its input, so a network at another size is another
    network. Inside of a sampler every step sees one blended answer for the whole image, as in MultiDiffusion (Bar-Tal
    et al. 2023, equation 5); tiles that were restored one by one would not agree where they meet. An image that is not
    larger than a tile is passed on as it is.

    Args:
        network: ``(x, t)`` or ``(x, t, extra)`` to a tensor of the height and width of ``x``, ``(B, C, H, W)``.
        side: of a tile in pixels.
        overlap: pixels that neighbouring tiles share at least; their weights fall linearly to their edges over these.
        at_once: tiles of one evaluation; it bounds the memory.

    Raises:
        ValueError: the overlap is negative or as large as a tile, or a count is below 1.
    """

    def __init__(self, network: nn.Module, *, side: int, overlap: int, at_once: int = 16) -> None:
        super().__init__()
        if side < 1 or at_once < 1 or not 0 <= overlap < side:
            raise ValueError(
                f"tiles need side >= 1, 0 <= overlap < side and at_once >= 1, got {side}, {overlap} and {at_once}"
            )
        self.network, self.side, self.overlap, self.at_once = network, side, overlap, at_once

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The weights under the names that they have without tiles: the model is the same, and so is its hash."""
        return self.network.state_dict(*args, **kwargs)

    def forward(self, x: Tensor, t: Tensor, extra: Tensor | None = None) -> Tensor:
        """Evaluate the network, see the class."""
        height, width = x.shape[-2:]
        if max(height, width) <= self.side:
            return self._evaluate(x, t, extra)
        rows, columns = (_starts(side, self.side, self.overlap) for side in (height, width))
        tall, wide = min(self.side, height), min(self.side, width)
        weight = self._weights(tall, wide).to(x.device)
        places = [(image, row, column) for image in range(len(x)) for row in rows for column in columns]
        total, shares = None, x.new_zeros((height, width), dtype=torch.float32)
        for row in rows:
            for column in columns:
                shares[row : row + tall, column : column + wide] += weight
        for first in range(0, len(places), self.at_once):
            some = places[first : first + self.at_once]
            which = torch.tensor([image for image, _, _ in some], device=x.device)
            tiles = torch.stack([x[image, :, row : row + tall, column : column + wide] for image, row, column in some])
            out = self._evaluate(tiles, t[which], None if extra is None else extra[which]).float()
            total = out.new_zeros((len(x), out.shape[1], height, width)) if total is None else total
            for answer, (image, row, column) in zip(out, some, strict=True):
                total[image, :, row : row + tall, column : column + wide] += weight * answer
        if total is None:
            raise ValueError(f"there is no image in a batch of shape {tuple(x.shape)}")
        return (total / shares).to(x.dtype)

    def _evaluate(self, x: Tensor, t: Tensor, extra: Tensor | None) -> Tensor:
        out: Tensor = self.network(x, t) if extra is None else self.network(x, t, extra)
        return out

    def _weights(self, height: int, width: int) -> Tensor:
        """``(H, W)``: the product of two trapezoids, positive everywhere."""
        rows, columns = (_trapezoid(side, self.overlap) for side in (height, width))
        return rows[:, None] * columns[None, :]


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """First pixels of the tiles along an axis: evenly placed, as few as possible."""
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(n * (length - side) / (count - 1)) for n in range(count)]


def _trapezoid(side: int, overlap: int) -> Tensor:
    place = torch.arange(side, dtype=torch.float32)
    nearest = torch.minimum(place, side - 1 - place) + 1
    return (nearest / (overlap + 1)).clamp(max=1.0)
