"""Whether data can be line integrals at all: their sign, the logarithm, the photons behind them, and metal."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.operators.ct.backprojection import fbp
from deft_ct.operators.ct.geometry import PlanarGeometry

WRONG_SIGN = 0.75
"""Share of the absolute sum that may be negative: 0.5 for noise without an object, at most 0.1 for an object."""
SATURATED = 0.02
"""Share of the rays that may read exactly the largest value."""
NOISE_RATIO = 4.0
"""Measured over expected noise without a warning; the object itself makes up to 2.7 of it at 1e5 photons."""
METAL_RATIO = 6.0
"""Attenuation over that of the tissue without a warning; bone reaches 2.5, and CT numbers cut at 3071 HU reach 4.9."""

_EDGE = 2
_BRIGHT_EDGE = 0.9
_SHADOW = 0.9
_NEGATIVE = 0.05
_ABSORBED = 2.0
_NOISE_SIZE = 0.02
_FINE = 128
_MEDIAN_TO_SIGMA = 1.4826


def negative_share(lines: Tensor) -> Tensor:
    """``(lines,)`` share of the absolute sum of ``(lines, views, detectors)`` that is negative: 1 for a wrong sign."""
    total = lines.abs().sum((1, 2)).clamp_min(torch.finfo(lines.dtype).tiny)
    return lines.clamp_max(0).abs().sum((1, 2)) / total


def looks_unlogged(lines: Tensor) -> Tensor:
    """``(lines,)``, whether data look like counts or transmittances, of which the logarithm was not taken.

    Of these, air at the ends of the detector reads the most and the object a shadow; of line integrals, air reads zero.
    The mean over the views is looked at: its ends are within 10 % of the largest value, something between them is at
    least 10 % below, and nothing is negative.
    """
    if lines.shape[-1] < 4 * _EDGE:
        return torch.zeros(len(lines), dtype=torch.bool, device=lines.device)
    profile = lines.mean(1)
    ends = torch.minimum(profile[:, :_EDGE].mean(1), profile[:, -_EDGE:].mean(1))
    bright = ends >= _BRIGHT_EDGE * profile.amax(1)
    return bright & (ends > 0) & (profile.amin(1) <= _SHADOW * ends) & (lines.amin((1, 2)) >= -_NEGATIVE * ends)


def saturated_rays(lines: Tensor) -> Tensor:
    """Rays of ``(lines, views, detectors)`` that read exactly the largest value, as rays without a single photon do.

    None below a line integral of 2, and where fewer than three views are concerned: a flat object can look so.
    """
    largest = lines.amax((1, 2), keepdim=True)
    at_most = lines >= largest - 1e-6 * largest.abs()  # a bridged element may be off by rounding
    real = (largest[:, 0, 0] > _ABSORBED) & (at_most.any(2).sum(1) >= 3)
    return at_most & real[:, None, None]


def saturated_share(lines: Tensor) -> Tensor:
    """``(lines,)`` share of the rays that :func:`saturated_rays` finds."""
    return saturated_rays(lines).double().mean((1, 2))


def noise_ratio(lines: Tensor, weights: Tensor) -> Tensor:
    """``(lines,)`` measured over expected standard deviation of the noise of the rays through the object.

    The measured one is that of the residual of linear interpolation between the two neighbours of an element. It
    counts the structure of the object as noise, so it is 1 where it is below 2 % of the largest line integral, and for
    detectors of fewer than 128 elements.

    Args:
        lines: ``(lines, views, detectors)``.
        weights: inverse variances, of the same shape.
    """
    if lines.shape[-1] < _FINE:
        return torch.ones(len(lines), device=lines.device)
    residual = lines[..., 1:-1] - 0.5 * (lines[..., :-2] + lines[..., 2:])
    variance = weights.clamp_min(torch.finfo(weights.dtype).tiny).reciprocal()
    expected = (variance[..., 1:-1] + 0.25 * (variance[..., :-2] + variance[..., 2:])).sqrt()
    largest = lines.amax((1, 2), keepdim=True)
    air = lines[..., 1:-1] <= 0.05 * largest
    ratio = (residual.abs() / expected).masked_fill(air, torch.nan).flatten(1).nanmedian(1).values
    size = residual.abs().masked_fill(air, torch.nan).flatten(1).nanmedian(1).values
    small = _MEDIAN_TO_SIGMA * size <= _NOISE_SIZE * largest[:, 0, 0]
    return torch.where(small | ratio.isnan(), 1.0, _MEDIAN_TO_SIGMA * ratio)


def metal_ratio(lines: Tensor, geometry: PlanarGeometry) -> Tensor:
    """``(lines,)`` largest attenuation of 2 x 2 pixels over that of the tissue, in a smooth back-projection.

    The tissue is the median of the attenuation, weighted by itself. The ratio needs no unit.
    """
    if len(geometry.angle_array) < 8 or min(geometry.image_shape) < 16:
        return torch.zeros(len(lines), device=lines.device)
    image = fbp(lines[:, None], geometry, filter="hann").clamp_min(0)
    largest = torch.nn.functional.avg_pool2d(image, 2, 1).flatten(1).amax(1)
    ordered = image.flatten(1).sort(1).values
    total = ordered.cumsum(1)
    half = (total < 0.5 * total[:, -1:]).sum(1)
    tissue = ordered.gather(1, half[:, None])[:, 0]
    return largest / tissue.clamp_min(torch.finfo(lines.dtype).tiny) * (tissue > 0)
