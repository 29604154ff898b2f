"""Which rays pass beside a pixel: what turns a back-projection into a gather."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.operators.ct.rays import JosephRays

_OUT_OF_REACH = -4.0
"""Start of a ray that runs along the other axis: no cell lies beside it."""
_STEEP = 1e-3
"""A slope whose rays leave the image within a line of where they do in double precision."""
_MARGIN = 1e-3
"""Cells by which single precision may be off."""


@dataclass(frozen=True)
class RayArrays:
    """The rays of a scan in single precision on a device.

    Attributes:
        start: ``(2, views, elements)`` index of the cell at line 0, for rays along the rows and along the columns.
        slope: ``(2, views, elements)`` cells for each line.
        weight: ``(views, elements)`` length between two lines, mm.
        axis: ``(views, elements)`` int8, 1 for rays along the columns.
        first: ``(views, elements)`` int32, no line before it has a share of the ray.
        last: ``(views, elements)`` int32, nor has any line from it on.
    """

    start: Tensor
    slope: Tensor
    weight: Tensor
    axis: Tensor
    first: Tensor
    last: Tensor


def ray_arrays(
    rays: JosephRays, image_shape: tuple[int, int], sinogram_shape: tuple[int, int], device: torch.device
) -> RayArrays:
    """Rays as the kernels take them; one that misses the image is out of reach of both axes.

    Near the ends of its range a ray has no share but for rounding, which is not that of double precision. So the
    ranges are a line wider, and those of rays that nearly run along a line are all lines.
    """
    hits = rays.first < rays.last
    lines = np.where(rays.by_column, image_shape[1], image_shape[0])
    steep = np.abs(rays.slope) > _STEEP
    first = np.where(steep, np.maximum(rays.first - 1, 0), 0)
    last = np.where(hits, np.where(steep, np.minimum(rays.last + 1, lines), lines), 0)
    own = np.stack([hits & ~rays.by_column, hits & rays.by_column])

    def placed(values: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
        shape = (*values.shape[:-1], *sinogram_shape)
        return torch.from_numpy(np.ascontiguousarray(values)).to(dtype).reshape(shape).to(device)

    return RayArrays(
        start=placed(np.where(own, rays.start, _OUT_OF_REACH), torch.float32),
        slope=placed(np.where(own, rays.slope, 0.0), torch.float32),
        weight=placed(rays.weight, torch.float32),
        axis=placed(rays.by_column, torch.int8),
        first=placed(first, torch.int32),
        last=placed(last, torch.int32),
    )


@dataclass(frozen=True)
class RayWindows:
    """For each pixel and each pass, the detector elements whose rays are less than a cell away.

    A pass is a view and an axis. A view of a parallel beam has one pass, one of a fan beam may have two.

    Attributes:
        view: ``(passes,)`` int32.
        axis: ``(passes,)`` int32, 1 for rays along the columns.
        first: ``(passes, height, width)`` int16 or int32, the first of these elements.
        most: most elements beside one pixel.
    """

    view: Tensor
    axis: Tensor
    first: Tensor
    most: int


def ray_windows(rays: RayArrays, image_shape: tuple[int, int]) -> RayWindows:
    """Look the elements up, view by view.

    Raises:
        ValueError: the rays beside a pixel are not neighbours on the detector.
    """
    elements = rays.start.shape[-1]
    passes, firsts, most = [], [], 1
    for view in range(rays.start.shape[1]):
        for axis in range(2):
            own = (rays.start[axis, view] != _OUT_OF_REACH).nonzero().flatten()
            if not len(own):
                continue
            lines, cells = image_shape[axis], image_shape[1 - axis]
            line = torch.arange(lines, dtype=torch.float32, device=own.device)[:, None]
            position, order = (rays.start[axis, view, own] + rays.slope[axis, view, own] * line).sort()
            cell = torch.arange(cells, dtype=torch.float32, device=own.device).expand(lines, -1).contiguous()
            low = torch.searchsorted(position, cell - 1 - _MARGIN)
            high = torch.searchsorted(position, cell + 1 + _MARGIN)
            limit = len(own) - 1
            ends = [own[order.gather(1, at.clamp(0, limit))] for at in (low, high - 1)]
            first, count = torch.minimum(*ends), high - low
            if ((count > 0) & (torch.maximum(*ends) - first + 1 != count)).any():
                raise ValueError(
                    f"rays of view {view} that pass beside a pixel are not neighbours on the detector: use "
                    "backend='matrix' or 'joseph'"
                )
            first = torch.where(count > 0, first, elements)
            firsts.append((first if axis == 0 else first.T).to(_index_type(elements)))
            passes.append((view, axis))
            most = max(most, int(count.max()))
    numbers = torch.tensor(passes, dtype=torch.int32, device=rays.start.device).reshape(-1, 2)
    shape = (0, *image_shape)
    table = torch.stack(firsts) if firsts else rays.start.new_zeros(shape, dtype=torch.int16)
    return RayWindows(numbers[:, 0].contiguous(), numbers[:, 1].contiguous(), table, most)


def _index_type(elements: int) -> torch.dtype:
    return torch.int16 if elements <= torch.iinfo(torch.int16).max else torch.int32
