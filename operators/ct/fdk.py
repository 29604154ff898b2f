"""Feldkamp-Davis-Kress reconstruction of circular cone-beam scans."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torch.utils.checkpoint import checkpoint

from deft_ct.operators.ct.cone import ConeGeometry
from deft_ct.operators.ct.filters import apply_filter, check_filter, ramp_response
from deft_ct.operators.ct.redundancy import one_sided_padding, ray_weights


def fdk(y: Tensor, geometry: ConeGeometry, filter: str = "ram-lak", cutoff: float = 1.0) -> Tensor:
    """Filtered back-projection for cone beams (Feldkamp, Davis and Kress 1984, J. Opt. Soc. Am. A 1, 612).

    Exact in the plane of the source, approximate outside it. Every row of the detector takes the redundancy weights of
    the middle plane (:func:`~deft_ct.operators.ct.redundancy.ray_weights`). Short scans take Parker's. A full turn with
    a detector that is cut off on one side (half-fan) takes Wang's (2002, Med. Phys. 29, 1634, for cone beams too).
    Opposite rays of such a detector add up to one in every row, since the weights depend on the column alone.

    Linear, batched and differentiable. The views are recomputed in the backward pass, so that memory does not grow with
    them.

    Args:
        y: ``(..., views, rows, columns)`` line integrals.
        geometry: a circular scan (``pitch_mm`` 0).
        filter: as in :func:`~deft_ct.operators.ct.fbp`, along the detector rows.
        cutoff: fraction of the Nyquist frequency where the filter ends.

    Returns:
        ``(..., slices, rows, columns)`` attenuation in 1/mm.

    Raises:
        TypeError: not a cone geometry, or ``y`` is not a floating-point tensor.
        ValueError: a helical scan, a detector that does not reach the rotation axis, an unknown filter or a wrong
            shape.
    """
    check_filter(filter, cutoff)
    if not isinstance(geometry, ConeGeometry):
        raise TypeError(f"fdk needs a ConeGeometry, got {type(geometry).__name__}; use fbp for two dimensions")
    if geometry.pitch_mm != 0:
        raise ValueError(
            f"fdk is for circular scans, got pitch_mm = {geometry.pitch_mm:g}: reconstruct a helix iteratively "
            f"(for example cgls) or rebin it first"
        )
    if not y.is_floating_point():
        raise TypeError(f"fdk needs a floating-point tensor, got {y.dtype}")
    shape = geometry.sinogram_shape
    if tuple(y.shape[-3:]) != shape:
        raise ValueError(f"fdk: y must have trailing shape {shape}, got shape {tuple(y.shape)}")
    fan = geometry.middle_fan()
    rays = geometry.rays()
    reach = torch.from_numpy(-(rays.origin * rays.direction).sum(-1)) / geometry.source_to_detector_mm
    weights = torch.from_numpy(ray_weights(fan))[:, None, :] * reach
    before, after = one_sided_padding(fan)
    response = torch.from_numpy(ramp_response(fan.detectors + before + after, fan.detector_mm, filter, cutoff)).to(y)
    # Filtered rows reach beyond a detector that is cut off on one side: give them room there.
    rows = apply_filter(torch.nn.functional.pad(y.reshape(-1, *shape) * weights.to(y), (before, after)), response)
    geometry = _widened(geometry, before, after)
    total = rows.new_zeros((len(rows), *geometry.image_shape))
    for view, angle in enumerate(geometry.angle_array.tolist()):
        one = rows[:, view]
        if torch.is_grad_enabled() and one.requires_grad:
            part = checkpoint(_backproject_view, one, geometry, angle, use_reentrant=False)
        else:
            part = _backproject_view(one, geometry, angle)
        total = total + part
    return total.reshape(*y.shape[:-3], *geometry.image_shape)


def _widened(geometry: ConeGeometry, before: int, after: int) -> ConeGeometry:
    """The scan with so many more detector columns on either side."""
    rows, columns = geometry.detectors
    along_rows, along_columns = geometry.detector_offset_mm
    shift = 0.5 * (after - before) * geometry.detector_vu[1]
    return geometry.replace(
        detectors=(rows, columns + before + after), detector_offset_mm=(along_rows, along_columns + shift)
    )


def _backproject_view(rows: Tensor, geometry: ConeGeometry, angle: float) -> Tensor:
    """Voxel-driven back-projection of one view ``(N, rows, columns)`` with the weight (distance / depth) squared."""
    (slices, height, width), (dz, dy, dx) = geometry.image_shape, geometry.voxel_zyx
    (n_v, n_u), (dv, du) = geometry.detectors, geometry.detector_vu
    off_v, off_u = geometry.detector_offset_mm

    def centred(number: int, step: float) -> Tensor:
        return (torch.arange(number, dtype=rows.dtype, device=rows.device) - (number - 1) / 2) * step

    turn = torch.tensor(angle, dtype=torch.float64)
    cos, sin = float(torch.cos(turn)), float(torch.sin(turn))
    x = centred(width, dx)[None, :]
    y = -centred(height, dy)[:, None]
    z = centred(slices, dz)[:, None, None]
    scale = geometry.source_to_detector_mm / (geometry.source_to_center_mm - x * sin + y * cos)
    u = ((x * cos + y * sin + geometry.axis_offset_mm) * scale - off_u) / du
    v = (z * scale - off_v) / dv
    # grid_sample counts from -1 at the first element to 1 at the last one.
    grid = torch.stack([(2 / max(n_u - 1, 1) * u).expand_as(v), 2 / max(n_v - 1, 1) * v], -1)
    grid = grid.reshape(1, slices * height, width, 2)
    values = grid_sample(rows[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    out: Tensor = values.reshape(len(rows), slices, height, width) * scale**2
    return out
