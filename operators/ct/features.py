"""Scan descriptor: what a network for many scans is conditioned on."""

from __future__ import annotations

import math

from torch import Tensor

from deft_ct.operators.ct.geometry import FanGeometry, PlanarGeometry
from deft_ct.operators.ct.photons import equivalent_photons
from deft_ct.operators.ct.redundancy import missing_direction, missing_fraction

SCAN_FEATURES, DIRECTION_FEATURES = 4, 2
"""Length of the descriptor without the direction of a limited arc, and of the direction."""


def planar_scan_features(geometry: PlanarGeometry, y: Tensor, weights: Tensor | None) -> Tensor:
    """Descriptor of a scan; zero for 60 full parallel views at 1e5 photons.

    Args:
        geometry: parallel or fan beam.
        y: line integrals ``(B, 1, views, detectors)``.
        weights: inverse variances, of the shape of ``y``; None for noise-free data.

    Returns:
        ``(B, 6)`` float32, each of order one: the number of views, as ``log2(views / 60)``; twice the share of the
        lines through the image that no view measures (0 for a short scan of a fan, too); the noise, as
        ``log10(photons / 1e5)`` with the equivalent photons of other noise, limited to 1e3 to 1e7; half the fan angle
        in radians, 0 for parallel beams; and the second feature times cosine and sine of twice the middle direction of
        the missing lines.
    """
    missing = missing_fraction(geometry)
    opening = float(abs(geometry.fan_angles).max()) if isinstance(geometry, FanGeometry) else 0.0
    noise = (equivalent_photons(y, weights).double() / 1e5).log10().clamp(-2, 2).float()
    angle = 2 * missing_direction(geometry)
    values = [
        math.log2(geometry.sinogram_shape[0] / 60), 2 * missing, 0.0, opening,
        2 * missing * math.cos(angle), 2 * missing * math.sin(angle),
    ]  # fmt: skip
    features = noise.new_tensor(values).repeat(len(noise), 1)
    features[:, 2] = noise
    return features
