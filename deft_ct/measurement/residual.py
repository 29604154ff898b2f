"""Whether an image explains the data that it was reconstructed from."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.findings import Finding
from deft_ct.operators.noise import NoNoise

NAME = "data not explained"
LARGEST_RESIDUAL = 0.9
"""Relative residual without a warning; 0 for a perfect fit, 1 for an image of zeros."""
LARGEST_RESIDUAL_OF_IMAGES = 0.3
"""The same for images whose values may be negative, such as photographs in [-1, 1]. HDR by a step of DPS that is too
large ends at 0.33 to 0.76, and 13 dB or less. Sums over the rays of a scan are dominated by the mean."""
TIMES_NOISE = 5.0
"""How many times the residual that the noise explains may be exceeded without a warning."""


@torch.no_grad()
def relative_residuals(y: Tensor, image: Tensor, measurement: Measurement) -> Tensor:
    """``|y - A(x)| / |y|`` of each image, ``(B,)``.

    Args:
        y: ``(B, C, *)`` data.
        image: ``(B, *image_shape)`` in physical units.
        measurement: physics and noise.
    """
    residual = y - measurement.noise.mean(measurement.operator(image))
    return residual.flatten(1).norm(dim=1) / _norms(y)


@torch.no_grad()
def batch_residual(y: Tensor, image: Tensor, measurement: Measurement) -> float:
    """``|y - A(x)| / |y|`` over the whole batch; arguments as of :func:`relative_residuals`."""
    residual = y - measurement.noise.mean(measurement.operator(image))
    return float(residual.norm() / y.norm().clamp_min(torch.finfo(y.dtype).tiny))


@torch.no_grad()
def noise_residuals(y: Tensor, measurement: Measurement) -> Tensor:
    """The relative residual that the noise of each image explains, ``(B,)``; zero for noise-free data."""
    if isinstance(measurement.noise, NoNoise):
        return y.new_zeros(len(y))
    return measurement.noise.weights(y).reciprocal().flatten(1).sum(1).sqrt() / _norms(y)


def unexplained(y: Tensor, image: Tensor, measurement: Measurement) -> Finding | None:
    """A finding if the residual of an image is far above what the noise explains.

    It is above :data:`LARGEST_RESIDUAL` (:data:`LARGEST_RESIDUAL_OF_IMAGES` for images with negative values) and above
    :data:`TIMES_NOISE` times the residual of the noise alone.

    Args:
        y: ``(B, C, *)`` data, after repairs.
        image: ``(B, *image_shape)`` in physical units.
        measurement: physics and noise.
    """
    found, noise = relative_residuals(y, image, measurement), noise_residuals(y, measurement)
    largest = LARGEST_RESIDUAL if measurement.image_values.nonnegative else LARGEST_RESIDUAL_OF_IMAGES
    wrong = (found > largest) & (found > TIMES_NOISE * noise)
    if not bool(wrong.any()):
        return None
    worst = int(found.masked_fill(~wrong, -1).argmax())
    places = wrong.nonzero().flatten().tolist()  # not their names, which may be UIDs: findings enter reports
    where = f"images at {places} (counted from 0)"
    scaled = measurement.units is not None
    simulated = f"projections of the {where}" if scaled else f"{where}, degraded again,"
    check = "their sign, logarithm and geometry" if scaled else "the operator and its noise"
    return Finding(
        NAME,
        f"the {simulated} differ from the data by up to {float(found[worst]):.3g} of their size, of which noise "
        f"explains {float(noise[worst]):.2g}; the image is not a reconstruction of these data: check {check}, and the "
        "settings of the method",
    )


def _norms(y: Tensor) -> Tensor:
    return y.flatten(1).norm(dim=1).clamp_min(torch.finfo(y.dtype).tiny)
