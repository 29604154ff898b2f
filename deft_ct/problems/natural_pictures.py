"""Data of a degraded photograph as a picture, for people to look at."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.operators.base import Operator

_LARGEST = 10.0
"""Magnitudes beyond it are no grey values."""


def data_pictures(y: Tensor, operator: Operator) -> Tensor:
    """Pictures of data: as they are where they are pictures, else their pseudo-inverse, else logarithmic magnitudes.

    Args:
        y: ``(B, *range_shape)`` data of images in [-1, 1].
        operator: that they came from.

    Returns:
        ``(B, C, H, W)`` on the CPU with one channel or three. Logarithmic magnitudes lie in [-1, 1].

    Raises:
        ValueError: the images of the operator have neither one channel nor three.
    """
    wanted, channels = operator.range_shape, operator.domain_shape[0]
    if channels not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels, and the images here {channels}")
    pictures = len(wanted) == 3 and wanted[0] in (1, 3)
    if pictures and float(y.abs().max()) < _LARGEST:
        return y.detach().cpu()
    if operator.has_pseudo_inverse:
        return operator.pseudo_inverse(y).detach().cpu()
    level = torch.log1p(y.detach().cpu().abs())
    if not pictures:
        level = level.reshape(len(y), 1, 1, -1)
    return 2 * level / level.amax(tuple(range(1, level.ndim)), keepdim=True).clamp_min(1e-12) - 1
