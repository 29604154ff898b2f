"""Images of any size for networks that halve their maps: continued by reflection, cropped afterwards."""

from __future__ import annotations

import torch
from torch import Tensor


def continued(x: Tensor, multiple: int) -> tuple[Tensor, int, int]:
    """Images whose sides are multiples of a number, by reflection at their edges.

    The edge pixels are not repeated, as in ``torch.nn.functional.pad(mode="reflect")``, and unlike there the margin may
    be wider than the image. Both ends get half of what is missing. White noise stays white noise, which a repeated
    edge would turn into stripes: a denoiser sees an image as it knows them up to the border.

    Args:
        x: ``(..., H, W)``, not empty.
        multiple: what both sides shall be a multiple of.

    Returns:
        ``(..., H', W')``, which is ``x`` itself where nothing is missing, and the row and column where ``x`` starts.
    """
    height, width = x.shape[-2:]
    top, left = (-height % multiple) // 2, (-width % multiple) // 2
    if height % multiple:
        x = x.index_select(-2, _reflected(height, top, multiple, x.device))
    if width % multiple:
        x = x.index_select(-1, _reflected(width, left, multiple, x.device))
    return x, top, left


def _reflected(side: int, first: int, multiple: int, device: torch.device) -> Tensor:
    """Indices of a row of ``side`` pixels that is continued to a multiple, ``first`` pixels before its start."""
    places = torch.arange(-first, side + (-side % multiple) - first, device=device)
    period = max(2 * (side - 1), 1)
    around = places.remainder(period)
    return torch.minimum(around, period - around).clamp_max(side - 1)
