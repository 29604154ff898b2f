"""Perceptual measures of restored photographs: GMSD, which needs no weights, and LPIPS where its weights are at hand.

Nothing is ever downloaded. FID and KID compare whole sets of pictures, see :mod:`deft_ct.evaluation.picture_sets`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import correlate
from torch import Tensor

from deft_ct.evaluation.metrics import as_float64
from deft_ct.runtime.extras import optional_library

Floats = NDArray[np.float64]

EXTRA = "perceptual"
ALEXNET = "alexnet-owt-7be5be79.pth"
"""Name under which PyTorch keeps the weights of AlexNet that LPIPS is defined with."""
_LUMA = np.array([0.299, 0.587, 0.114])
_PREWITT = np.array([[1, 0, -1], [1, 0, -1], [1, 0, -1]]) / 3
_CONTRAST = 170.0
_SMALLEST = 8


def gmsd(recon: ArrayLike | Tensor, truth: ArrayLike | Tensor, *, value_range: tuple[float, float]) -> Floats:
    """Gradient magnitude similarity deviation of every image; 0 for equal images, higher is worse.

    Xue, Zhang, Mou and Bovik (IEEE Trans. Image Process. 2014, equations 1 to 5): the luminance on 0 to 255, averaged
    over 2 x 2 pixels, has the gradient magnitudes ``m`` (Prewitt); the deviation is the standard deviation over pixels
    of ``(2 m m' + c) / (m^2 + m'^2 + c)`` with ``c = 170``.

    Args:
        recon: restored images, ``(N, C, H, W)`` with one channel or three, each side at least 8 pixels.
        truth: true images of the same shape.
        value_range: black and white.

    Returns:
        ``(N,)``.

    Raises:
        ValueError: the shapes differ or are of another kind, or a value is not finite.
    """
    first, second = as_float64("recon", recon), as_float64("truth", truth)
    if first.shape != second.shape or second.ndim != 4 or second.shape[1] not in (1, 3):
        raise ValueError(f"gmsd needs images (N, 1 or 3, H, W) of one shape, got {first.shape} and {second.shape}")
    if min(second.shape[2:]) < _SMALLEST:
        raise ValueError(f"gmsd needs sides of at least {_SMALLEST} pixels, got {second.shape[2:]}")
    maps = []
    for one, other in zip(_edges(first, value_range), _edges(second, value_range), strict=True):
        maps.append((2 * one * other + _CONTRAST) / (one**2 + other**2 + _CONTRAST))
    return np.array([found.std() for found in maps])


def _edges(images: Floats, value_range: tuple[float, float]) -> list[Floats]:
    """Gradient magnitudes of the luminance of each image at half its size."""
    grey = images[:, 0] if images.shape[1] == 1 else np.tensordot(_LUMA, images, axes=(0, 1))
    height, width = (side - side % 2 for side in grey.shape[1:])
    low, high = value_range
    scaled = 255.0 * (grey[:, :height, :width] - low) / (high - low)  # outside of a picture is black, as in the paper
    halves = scaled.reshape(-1, height // 2, 2, width // 2, 2).mean((2, 4))
    return [np.hypot(*(correlate(one, kernel, mode="constant") for kernel in (_PREWITT, _PREWITT.T))) for one in halves]


def lpips_missing() -> str:
    """Why LPIPS cannot be computed here; empty if it can."""
    if find_spec("lpips") is None:
        return f"LPIPS is not measured: lpips is not installed (pip install 'deft-ct[{EXTRA}]')"
    path = _weights()
    if not path.is_file():
        return f"LPIPS is not measured: there are no weights of AlexNet at {path}"
    return ""


def lpips(recon: ArrayLike | Tensor, truth: ArrayLike | Tensor) -> Floats:
    """Learned perceptual distance of every image (Zhang et al. 2018, AlexNet, version 0.1); lower is better.

    Args:
        recon: restored images, ``(N, C, H, W)`` in [-1, 1], which is the range that LPIPS expects.
        truth: true images of the same shape.

    Returns:
        ``(N,)``.

    Raises:
        FileNotFoundError: its library or its weights are not at hand.
    """
    missing = lpips_missing()
    if missing:
        raise FileNotFoundError(missing)
    first, second = (
        torch.from_numpy(as_float64(name, values)).float() for name, values in (("recon", recon), ("truth", truth))
    )
    network = _network()
    with torch.no_grad():
        pairs = zip(first, second, strict=True)
        found = [float(network(a.expand(3, -1, -1)[None], b.expand(3, -1, -1)[None])) for a, b in pairs]
    return np.array(found)


def _weights() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET


@lru_cache(maxsize=1)
def _network() -> Any:
    return optional_library("lpips", EXTRA).LPIPS(net="alex", verbose=False).eval()
