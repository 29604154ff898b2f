"""Super-resolution: the data are a smaller image."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.image.separable import Separable


class SuperResolution(Separable):
    """Down-sampling by an integer factor, ``(C, H, W) -> (C, H/scale, W/scale)``.

    ``"average"`` is the mean of ``scale x scale`` blocks (RED-diff, DEFT, DDRM). ``"bicubic"`` is the anti-aliased
    cubic convolution of MATLAB's ``imresize`` (Keys 1981, a = -1/2, stretched by the factor, symmetric border), which
    DPS, DAPS and DiffPIR use.

    Args:
        image_shape: ``(C, H, W)``.
        scale: factor, which must divide ``H`` and ``W``.
        kernel: ``"average"`` or ``"bicubic"``.

    Raises:
        ValueError: unknown kernel, or the factor does not divide the image.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], scale: int = 4, kernel: Literal["average", "bicubic"] = "average"
    ) -> None:
        channels, height, width = image_shape
        if scale < 1 or height % scale or width % scale:
            raise ValueError(
                f"SuperResolution: scale must divide the image size {(height, width)}, got {scale}: crop the image, or "
                "continue it to the next multiple"
            )
        if kernel not in ("average", "bicubic"):
            raise ValueError(f"SuperResolution: kernel must be 'average' or 'bicubic', got {kernel!r}")
        matrix = _average_matrix if kernel == "average" else _bicubic_matrix
        super().__init__(channels, matrix(height, scale), matrix(width, scale))
        self.scale, self.kernel = scale, kernel


def _average_matrix(size: int, scale: int) -> Tensor:
    return torch.eye(size // scale, dtype=torch.float64).repeat_interleave(scale, dim=1) / scale


def _bicubic_matrix(size: int, scale: int) -> Tensor:
    """Rows of the stretched cubic kernel at the centres of the coarse pixels, each normalised to sum one."""
    centres = (np.arange(size // scale) + 0.5) * scale - 0.5
    taps = np.floor(centres - 2 * scale).astype(int)[:, None] + np.arange(4 * scale + 1)
    weights = _cubic((centres[:, None] - taps) / scale)
    weights /= weights.sum(1, keepdims=True)
    folded = taps % (2 * size)  # symmetric extension: ... 1 0 | 0 1 ... n-1 | n-1 ...
    folded = np.where(folded < size, folded, 2 * size - 1 - folded)
    matrix = np.zeros((size // scale, size))
    np.add.at(matrix, (np.arange(size // scale)[:, None], folded), weights)
    return torch.from_numpy(matrix)


def _cubic(t: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2."""
    t = np.abs(t)
    inner = 1.5 * t**3 - 2.5 * t**2 + 1
    outer = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0.0))
