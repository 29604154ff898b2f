"""Samples whose distance from the mean is that of the predicted error.

For exact samples of the posterior, the squared distance of a sample from the posterior mean is on average the squared
error of the mean. Samples of a trained network in few steps miss this: at some scans they are too alike, at others
too different. The spread network knows how large the error is. So each sample is moved along the line through the
mean, by one factor for the whole image. Its texture and its features stay; only their contrast against the mean
changes.
"""

from __future__ import annotations

from torch import Tensor

MOST = 3.0
"""Largest factor, and the inverse of the smallest one."""


def matched(samples: Tensor, mean: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """Scale the distance of samples from the mean.

    Args:
        samples: ``(B, N, *image_shape)``.
        mean: ``(B, *image_shape)``, of the same unit.
        energy: ``(B,)``, the mean squared error that is predicted for the mean of each image.

    Returns:
        ``(B, N, *image_shape)``, and the factors ``(B, N)``. A sample depends on no other sample.
    """
    centre = mean[:, None]
    away = samples - centre
    own = away.square().flatten(2).mean(2)
    factors = (energy[:, None] / own).sqrt().nan_to_num(1.0, posinf=MOST).clamp(1 / MOST, MOST)
    return centre + factors.reshape(*factors.shape, *(1,) * (mean.ndim - 1)) * away, factors
