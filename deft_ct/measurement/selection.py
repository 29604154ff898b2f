"""Choice of one of several samples by the data alone."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.residual import relative_residuals


@torch.no_grad()
def best_by_residual(y: Tensor, samples: Tensor, measurement: Measurement) -> tuple[Tensor, Tensor]:
    """The sample of each image that explains its data best; the truth is not looked at.

    Args:
        y: ``(B, C, *)`` data.
        samples: ``(B, S, *image_shape)`` in physical units.
        measurement: physics and noise.

    Returns:
        ``(B,)`` positions among the samples, and the relative residuals ``(B, S)``.
    """
    residuals = torch.stack([relative_residuals(y, samples[:, k], measurement) for k in range(samples.shape[1])], 1)
    return residuals.argmin(1), residuals
