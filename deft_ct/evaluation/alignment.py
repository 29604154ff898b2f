"""Alignment of an image with the truth where the data cannot tell some images apart, as in phase retrieval."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["aligned"]

SHIFT = 0.125
"""Largest shift along each axis, as a share of the side."""


def aligned(
    images: NDArray[np.floating[Any]], truth: NDArray[np.floating[Any]], *, largest_shift: float = SHIFT
) -> NDArray[np.float64]:
    """Each channel of an image as it is or turned by 180 degrees, and shifted, whichever is nearest to the truth.

    The magnitude of a Fourier transform is the same for a turned and for a (circularly) shifted image, in every channel
    by itself. The search is over whole pixels, by the cross-correlation. What leaves at one side comes in at the other.

    Args:
        images: ``(N, C, H, W)``.
        truth: of the same shape.
        largest_shift: along each axis, as a share of the side.

    Returns:
        ``(N, C, H, W)`` of the smallest mean squared error in each channel.

    Raises:
        ValueError: the shapes differ, or are not those of images.
    """
    found, true = np.asarray(images, np.float64), np.asarray(truth, np.float64)
    if found.shape != true.shape or found.ndim != 4:
        raise ValueError(
            f"aligned needs images and truth (N, C, H, W) of one shape, got {found.shape} and {true.shape}"
        )
    height, width = found.shape[-2:]
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) <= largest_shift * n for n in (height, width))
    allowed = rows[:, None] & columns[None, :]
    out = np.empty_like(found)
    for place in np.ndindex(found.shape[:2]):
        candidates = []
        for image in (found[place], found[place][::-1, ::-1]):
            # The error of a circular shift is a constant less twice the correlation.
            correlation = np.fft.irfft2(np.fft.rfft2(true[place]) * np.fft.rfft2(image).conj(), s=(height, width))
            best = np.unravel_index(np.where(allowed, correlation, -np.inf).argmax(), correlation.shape)
            candidates.append(np.roll(image, best, (0, 1)))
        out[place] = min(candidates, key=lambda one: float(((one - true[place]) ** 2).mean()))
    return out
