"""A natural image, and seeded random numbers."""

from __future__ import annotations

import numpy as np
import torch
from skimage import data


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(size: int = 64) -> np.ndarray:
    """A natural image, ``(size, size, 3)`` of uint8."""
    return np.ascontiguousarray(data.astronaut()[60 : 60 + size, 180 : 180 + size])


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """To ``(1, C, H, W)`` in [-1, 1], float64."""
    return torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)[None]
