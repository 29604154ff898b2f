"""The ray transform as a differentiable function of the scan itself: angles, offsets and distances.

The discretisation is Joseph's interpolation, as in :class:`~deft_ct.operators.ct.RayTransform`. So a geometry found
here is the geometry that reconstructs best there. Sampling at equal distances along the rays would be another operator
with a different bias.

The values are continuous and piecewise smooth in the geometry. The gradient is exact almost everywhere. There are two
exceptions. Where a ray passes through the centre of a pixel there is a kink, and a one-sided derivative is taken. Where
a ray runs at 45 degrees there is a jump of the size of the discretisation error.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry, PlanarGeometry

_SAMPLES_A_CHUNK = 2**21
_OFFSETS = ("detector_offset_mm", "axis_offset_mm")
_DISTANCES = ("source_to_center_mm", "source_to_detector_mm")


def project(
    image: Tensor,
    geometry: PlanarGeometry,
    *,
    angles: Tensor | None = None,
    detector_offset_mm: Tensor | None = None,
    axis_offset_mm: Tensor | None = None,
    source_to_center_mm: Tensor | None = None,
    source_to_detector_mm: Tensor | None = None,
) -> Tensor:
    """Line integrals of an image, differentiable in the image and in the geometry.

    Equal to ``RayTransform(geometry)(image)`` up to rounding where the tensors hold the values of ``geometry``. Rays at
    exactly 45 degrees aside, this is Joseph's method (Joseph 1982, IEEE Trans. Med. Imaging 1, 192) with the derivative
    of its interpolation. Chunked over views: the backward pass computes a chunk again instead of storing it. Much
    slower than ``RayTransform``, which is the operator to use once the geometry is known.

    Args:
        image: ``(..., rows, columns)`` attenuation in 1/mm, float32 or float64.
        geometry: the nominal scan; it gives the grid, the detector and every value that is not passed as a tensor.
        angles: ``(views,)`` radians.
        detector_offset_mm: scalar, or ``(views,)`` for an offset of each view.
        axis_offset_mm: scalar or ``(views,)``.
        source_to_center_mm: scalar or ``(views,)``; fan beams only.
        source_to_detector_mm: scalar or ``(views,)``; fan beams only.

    Returns:
        ``(..., views, detectors)``, dimensionless.

    Raises:
        TypeError: no tensor, no floating-point tensor, or a geometry without planar rays.
        ValueError: a shape that does not fit, a value that is not finite, source distances of a parallel beam, or a
            source within the image.
    """
    _check_image(image, geometry)
    given = {
        "angles": angles,
        "detector_offset_mm": detector_offset_mm,
        "axis_offset_mm": axis_offset_mm,
        "source_to_center_mm": source_to_center_mm,
        "source_to_detector_mm": source_to_detector_mm,
    }
    scan = scan_tensors(geometry, given, image.device)
    flat = image.reshape(-1, *geometry.image_shape)
    parts = []
    for views in _chunks(geometry, len(flat)):
        part = tuple(values[views] for values in scan.values())
        if torch.is_grad_enabled() and any(t.requires_grad for t in (image, *part)):
            # mypy does not know the return type of checkpoint.
            parts.append(checkpoint(_project_views, flat, geometry, *part, use_reentrant=False,
                                    preserve_rng_state=False))  # fmt: skip
        else:
            parts.append(_project_views(flat, geometry, *part))
    return torch.cat(parts, 1).reshape(*image.shape[:-2], *geometry.sinogram_shape)


def scan_tensors(geometry: PlanarGeometry, given: dict[str, Tensor | None], device: torch.device) -> dict[str, Tensor]:
    """Angles, offsets and distances as float64 ``(views,)``: those given, the others from the geometry.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: a shape that does not fit, a value that is not finite, source distances of a parallel beam, or a
            source within the image.
    """
    views = geometry.sinogram_shape[0]
    fan = isinstance(geometry, FanGeometry)
    out = {}
    for name in ("angles", *_OFFSETS, *_DISTANCES):
        value = given.get(name)
        if name in _DISTANCES and not fan:
            if value is not None:
                raise ValueError(f"{name} belongs to fan beams, got a {type(geometry).__name__}")
            continue
        if value is None:
            value = torch.tensor(getattr(geometry, name), dtype=torch.float64)
        elif not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{name} must be a floating-point torch tensor, got {type(value).__name__}")
        allowed = [(views,)] if name == "angles" else [(), (views,)]
        if tuple(value.shape) not in allowed:
            raise ValueError(f"{name} must have shape {' or '.join(map(str, allowed))}, got {tuple(value.shape)}")
        if not bool(value.detach().isfinite().all()):
            raise ValueError(f"{name} must be finite")
        least = {"source_to_center_mm": geometry.radius_mm, "source_to_detector_mm": 0.0}.get(name)
        if least is not None and not bool((value.detach() > least).all()):
            raise ValueError(
                f"{name} must exceed {least:.6g} mm (the source lies outside of the image, whose half diagonal is "
                f"{geometry.radius_mm:.6g} mm), got {float(value.detach().min()):.6g}"
            )
        out[name] = value.to(device, torch.float64).expand(views)
    return out


def _check_image(image: Tensor, geometry: PlanarGeometry) -> None:
    if not isinstance(geometry, ParallelGeometry | FanGeometry):
        raise TypeError(f"geometry must be a ParallelGeometry or FanGeometry, got {type(geometry).__name__}")
    if not isinstance(image, Tensor) or image.dtype not in (torch.float32, torch.float64):
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image must be a float32 or float64 torch tensor, got {got}")
    if tuple(image.shape[-2:]) != geometry.image_shape:
        raise ValueError(f"image must have trailing shape {geometry.image_shape}, got shape {tuple(image.shape)}")


def _chunks(geometry: PlanarGeometry, images: int) -> Iterator[slice]:
    views, detectors = geometry.sinogram_shape
    size = max(1, _SAMPLES_A_CHUNK // (detectors * max(geometry.image_shape) * max(1, images)))
    for first in range(0, views, size):
        yield slice(first, min(first + size, views))


def _rays(
    geometry: PlanarGeometry, angles: Tensor, detector: Tensor, axis: Tensor, *distances: Tensor
) -> tuple[Tensor, Tensor]:
    """Origin and direction of each ray, ``(views, detectors, 2)``; as ``geometry.rays()``, in torch."""
    index = torch.arange(geometry.detectors, dtype=torch.float64, device=angles.device)
    u = (index - (geometry.detectors - 1) / 2) * geometry.detector_mm + detector[:, None]
    across = torch.stack([angles.cos(), angles.sin()], -1)
    along = torch.stack([-angles.sin(), angles.cos()], -1)
    if not distances:
        origin = (u - axis[:, None])[..., None] * across[:, None]
        return origin, along[:, None].expand(origin.shape)
    to_center, to_detector = distances
    assert isinstance(geometry, FanGeometry)
    tangent = u / to_detector[:, None]
    total = angles[:, None] - (tangent.arctan() if geometry.detector == "flat" else tangent)
    direction = torch.stack([-total.sin(), total.cos()], -1)
    source = -to_center[:, None] * along - axis[:, None] * across
    return source[:, None].expand(direction.shape), direction


def _project_views(images: Tensor, geometry: PlanarGeometry, *scan: Tensor) -> Tensor:
    """``(N, H, W)`` to ``(N, views, detectors)`` for the views whose angles, offsets and distances are given."""
    origin, direction = _rays(geometry, *scan)
    shape = origin.shape[:2]
    (height, width), (pitch_y, pitch_x) = geometry.image_shape, geometry.pixel_rc
    column, row = (
        origin[..., 0].flatten() / pitch_x + (width - 1) / 2,
        (height - 1) / 2 - origin[..., 1].flatten() / pitch_y,
    )
    d_column, d_row = direction[..., 0].flatten() / pitch_x, -direction[..., 1].flatten() / pitch_y
    by_column = d_column.abs() > d_row.abs()
    out = images.new_zeros((len(images), column.numel()))
    for turned in (False, True):
        rays = torch.nonzero(by_column if turned else ~by_column).squeeze(1)
        if rays.numel():
            lines = (column, d_column, row, d_row) if turned else (row, d_row, column, d_column)
            values = _joseph(images.mT if turned else images, *(line[rays] for line in lines))
            out = out.index_copy(1, rays, values)
    return out.reshape(len(images), *shape)


def _joseph(images: Tensor, major: Tensor, d_major: Tensor, minor: Tensor, d_minor: Tensor) -> Tensor:
    """Sums along rays ``(N, rays)``, linear between the two nearest cells of each line, zero outside."""
    count, lines, cells = images.shape
    slope = d_minor / d_major
    k = torch.arange(lines, dtype=torch.float64, device=images.device)
    position = ((minor - slope * major)[:, None] + slope[:, None] * k).clamp(-1, cells)
    cell = position.detach().floor().clamp_max(cells - 1)
    fraction = (position - cell).to(images.dtype)
    padded = torch.nn.functional.pad(images, (1, 1)).flatten(1)
    index = (cell + (k * (cells + 2) + 1)).long().flatten()
    near = padded.index_select(1, index).reshape(count, *position.shape)
    far = padded.index_select(1, index + 1).reshape(count, *position.shape)
    return (near + fraction * (far - near)).sum(-1) * (1 / d_major.abs()).to(images.dtype)
