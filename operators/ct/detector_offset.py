"""Whether the data of a scan agree with the position of its detector, from their first moments.

The centre of mass of a parallel projection is that of the object, projected: ``c . (cos b, sin b)`` at the angle ``b``
(Helgason-Ludwig consistency of order one). A detector that is off adds its shift to every view, which no object can do.
Over a full turn of a fan every line is measured from both ends. The mean over the views is therefore symmetric about
the axis, and its centre of mass is the shift. :func:`deft_ct.operators.ct.align_scan` corrects more, and takes longer.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry, PlanarGeometry
from deft_ct.operators.ct.redundancy import angular_coverage, angular_range
from deft_ct.operators.ct.system_matrix import Geometry

_LEAST_ARC = math.radians(85)
_LEAST_VIEWS = 6
_EDGE, _AIR = 2, 0.02
"""So many elements at both ends of the detector see nothing, up to this share of the largest mean over the views."""
_LARGEST_ERROR = 0.06
_SPLINE = 5
"""Order of the splines that move data: nearly the sinc, so that noise stays as strong as it was."""


def detector_shift(sinogram: Tensor, geometry: Geometry) -> float | None:
    """By how many detector elements the detector is off, beyond what the geometry says.

    What it finds in simulated scans of single slices of the body is in ``benchmarks/results/robustness.md``.

    Args:
        sinogram: ``(..., views, detectors)`` line integrals; all leading axes are slices of one scan.
        geometry: the scan.

    Returns:
        The shift, positive where ``detector_offset_mm`` should be larger.

        None if the data do not determine it. This is so for cone beams, for parallel arcs below 90 degrees, for fans
        below a full turn, for truncated views and without an object. It is also so if the error exceeds 0.06 elements.
        The error is the standard error, plus the effect of a straight line through the air on both sides.

    Raises:
        ValueError: the sinogram does not fit the geometry.
    """
    if not isinstance(geometry, ParallelGeometry | FanGeometry):
        return None
    if tuple(sinogram.shape[-2:]) != geometry.sinogram_shape:
        raise ValueError(f"the sinogram must end in {geometry.sinogram_shape}, got shape {tuple(sinogram.shape)}")
    fan = isinstance(geometry, FanGeometry)
    full_turn = angular_coverage(geometry.angle_array, 2 * math.pi).full
    if geometry.sinogram_shape[0] < _LEAST_VIEWS or (not full_turn if fan else angular_range(geometry) < _LEAST_ARC):
        return None
    data = sinogram.detach().cpu().double().reshape(-1, *geometry.sinogram_shape)
    profile = data.mean(1)
    seen = profile > _AIR * profile.amax(1, keepdim=True)
    ends = torch.cat([seen[:, :_EDGE], seen[:, -_EDGE:]], 1).any(1)
    usable = ~ends & (profile.amax(1) > 0)
    if not bool(usable.any()):
        return None
    data, position = data[usable], _positions(geometry)
    centre = _centre_of_a_turn if fan else _centre_of_parallel_views
    found, errors = centre(data, position, geometry)
    corrected, _ = centre(data - _background(profile[usable], seen[usable], position)[:, None], position, geometry)
    statistical = float(errors.square().sum().sqrt()) / len(data)
    systematic = abs(float((found - corrected).mean()))
    return None if math.hypot(statistical, systematic) > _LARGEST_ERROR else -float(corrected.mean())


def moved_back(sinogram: Tensor, shift: float) -> Tensor:
    """Data as a detector at its stated position would have read them, by spline interpolation along the detector.

    Args:
        sinogram: ``(..., detectors)``.
        shift: how many elements the detector is off, as :func:`detector_shift` says it.
    """
    moves = [0.0] * (sinogram.ndim - 1) + [shift]
    values = ndimage.shift(sinogram.detach().cpu().double().numpy(), moves, order=_SPLINE, mode="nearest")
    return torch.as_tensor(values).to(sinogram)


def _background(profile: Tensor, seen: Tensor, position: Tensor) -> Tensor:
    """Reading of the air on both sides of the object, interpolated linearly across it, ``(slices, detectors)``."""
    terms = torch.stack([torch.ones_like(position), position], 1)
    first, last = seen.int().argmax(1), len(position) - 1 - seen.flip(1).int().argmax(1)
    index = torch.arange(len(position))
    spare = len(position) - 1 - last
    # The outer half of either side: the tails of the object, a blanket say, are nearer.
    air = ((index < (first / 2).ceil()[:, None]) | (index > (len(position) - 1 - spare / 2).floor()[:, None])).double()
    normal = torch.einsum("nd,di,dj->nij", air, terms, terms)
    return torch.linalg.solve(normal, torch.einsum("nd,di,nd->ni", air, terms, profile)) @ terms.T


def _positions(geometry: PlanarGeometry) -> Tensor:
    """``(detectors,)`` where the detector elements are, from the rotation axis, in elements."""
    if not isinstance(geometry, FanGeometry):
        return torch.as_tensor((geometry.detector_positions - geometry.axis_offset_mm) / geometry.detector_mm)
    angles = geometry.fan_angles - math.atan2(geometry.axis_offset_mm, geometry.source_to_center_mm)
    lateral = np.tan(angles) if geometry.detector == "flat" else angles
    return torch.as_tensor(lateral * (geometry.source_to_detector_mm / geometry.detector_mm))


def _centre_of_parallel_views(data: Tensor, position: Tensor, geometry: PlanarGeometry) -> tuple[Tensor, Tensor]:
    """Constant term, and its standard error, of the centre of mass against the angle."""
    angles = torch.as_tensor(geometry.angle_array.copy())
    terms = torch.stack([angles.cos(), angles.sin(), torch.ones_like(angles)], 1)
    # All views have the same mass, so their mean does for each and the few photons of one view do not move its centre.
    centre = (data @ position) / data.sum(-1).mean(1, keepdim=True)
    inverse = torch.linalg.inv(terms.T @ terms)
    fitted = centre @ terms @ inverse
    left = centre - fitted @ terms.T
    variance = left.square().sum(1) / max(1, len(angles) - 3)
    return fitted[:, 2], (variance * inverse[2, 2]).sqrt()


def _centre_of_a_turn(data: Tensor, position: Tensor, geometry: PlanarGeometry) -> tuple[Tensor, Tensor]:
    """Centre of mass of the mean over a full turn; its error by the two halves of the views."""
    weights = torch.as_tensor(angular_coverage(geometry.angle_array, 2 * math.pi).steps)

    def centre(views: slice) -> Tensor:
        mean = torch.einsum("nvd,v->nd", data[:, views], weights[views])
        return (mean @ position) / mean.sum(1)

    halves = centre(slice(0, None, 2)) - centre(slice(1, None, 2))
    return centre(slice(None)), halves.abs() / 2
