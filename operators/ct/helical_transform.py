"""The ray transform of a helical scan with its true geometry, matrix-free."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct.backends.joseph_cone import import_cone_kernels
from deft_ct.operators.ct.helical_fbp import helical_fbp
from deft_ct.operators.ct.helix import HelicalScan, VolumeGrid
from deft_ct.operators.ct.photons import NOISE_FREE_PHOTONS
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.tv_hint import divergent_beam_hint
from deft_ct.operators.findings import RegularisationHint
from deft_ct.operators.image_values import ATTENUATION, ImageValues
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.memory import check_memory
from deft_ct.operators.noise import PoissonNoise
from deft_ct.operators.threads import run_tasks

_POSE_BYTES = 96
_TASKS = 4


class HelicalTransform(LinearOperator):
    """Line integrals of a volume along every ray of a helical scan, from the true place of the source of each view.

    Joseph's bilinear interpolation (1982) with its exact adjoint, on the CPU; needs Numba. A column of the curved
    detector is straight, so each one is projected as a flat detector of its own.

    Args:
        scan: the scan, with any positions of the focal spot.
        grid: the voxels. What the rays meet outside of it counts as air: for an iterative method it has to reach as far
            along the axis as the rays do, see :func:`covering_grid`.

    Raises:
        ImportError: Numba is not installed.
        ValueError: the source passes through the volume, or there is too little memory.
    """

    def __init__(self, scan: HelicalScan, grid: VolumeGrid) -> None:
        super().__init__(grid.image_shape, scan.data_shape)
        if float((scan.radius_mm + scan.source_shifts[:, 2]).min()) <= grid.radius_mm:
            raise ValueError(
                f"the source passes through the volume, whose half diagonal is {grid.radius_mm:g} mm: take fewer or "
                "smaller pixels"
            )
        views, rows, columns = scan.data_shape
        check_memory(
            views * columns * (_POSE_BYTES + 8 * rows) + 16 * math.prod(grid.image_shape),
            f"a helical scan with {views} views of {rows} x {columns} detector elements",
            "reconstruct fewer slices, or use a rebinning method",
        )
        self.scan, self.grid = scan, grid
        self._kernels = import_cone_kernels()
        self._shape = np.array(grid.image_shape, np.int64)
        self._padded = tuple(int(n) + 3 for n in grid.image_shape)  # one voxel below, two above for rounding
        self._strides = np.array([self._padded[1] * self._padded[2], self._padded[2], 1], np.int64)
        self._spacing = np.array(grid.voxel_zyx)
        self._poses = self._columns_as_detectors()

    def _columns_as_detectors(self) -> Array:
        """``(views * columns, 4, 3)`` source, first element, step to the next row, and none to a next column."""
        scale = np.array([1.0, -1.0, 1.0]) / self._spacing  # xyz reversed to (z, row, column); rows count downwards
        center = (self._shape - 1) / 2
        corner = self.scan.columns()
        source = np.broadcast_to(self.scan.sources()[:, None], corner.shape)
        poses = np.zeros((corner.shape[0] * corner.shape[1], 4, 3))
        for place, points in enumerate((source, corner)):
            poses[:, place] = center + ((points - [0.0, 0.0, self.grid.z_mm])[..., ::-1] * scale).reshape(-1, 3)
        poses[:, 2, 0] = self.scan.detector_mm[0] / self._spacing[0]
        return poses

    def _forward_kernel(self, x: Tensor) -> Tensor:
        out = torch.empty(len(x), *self.range_shape, dtype=x.dtype)
        tasks = list(itertools.pairwise(np.linspace(0, len(self._poses), 8 * _TASKS + 1).astype(int).tolist()))
        for image, data in zip(x.detach().cpu(), out, strict=True):
            volume = torch.zeros(self._padded, dtype=x.dtype)
            volume[1:-2, 1:-2, 1:-2] = image
            target = np.empty((len(self._poses), self.scan.detectors[0], 1), data.numpy().dtype)
            common = (volume.reshape(-1).numpy(), self._shape, self._strides, self._spacing, self._poses)
            run_tasks(self._kernels.project_cone, [(*common, a, b, target) for a, b in tasks])
            views, rows, columns = self.range_shape
            data.copy_(torch.from_numpy(target).reshape(views, columns, rows).mT)
        return out.to(x.device)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        out = []
        for data in y.detach().cpu():
            rays = data.mT.reshape(len(self._poses), self.scan.detectors[0], 1).contiguous().numpy()
            total = np.zeros(self._padded, rays.dtype)
            for axis in range(3):
                # A volume for each major axis, so that slabs of one axis never write to the same voxel.
                volume = np.zeros_like(total)
                slabs = min(_TASKS, torch.get_num_threads())
                edges = np.linspace(0, self._shape[axis], slabs + 1).astype(int).tolist()
                common = (volume.reshape(-1), self._shape, self._strides, self._spacing, self._poses, axis)
                tasks = [(*common, a, b, rays) for a, b in itertools.pairwise(edges) if b > a]
                run_tasks(self._kernels.backproject_cone, tasks)
                total += volume
            out.append(torch.from_numpy(np.ascontiguousarray(total[1:-2, 1:-2, 1:-2])))
        return torch.stack(out).to(y.device)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Weighted filtered back-projection, see :func:`~deft_ct.operators.ct.helical_fbp.helical_fbp`."""
        flat = y.reshape(-1, *self.range_shape)
        images = [helical_fbp(data, self.scan, self.grid).volume for data in flat]
        return torch.stack(images).reshape(*y.shape[:-3], *self.domain_shape)

    @property
    def grid_spacing(self) -> tuple[float, float, float]:
        """Voxel size along (slices, rows, columns), mm."""
        return self.grid.voxel_zyx

    @property
    def image_values(self) -> ImageValues:
        """Attenuation in 1/mm."""
        return ATTENUATION

    def regularisation_hint(self, y: Tensor, weights: Tensor | None) -> RegularisationHint:
        """See :func:`~deft_ct.operators.ct.tv_hint.divergent_beam_hint`."""
        return divergent_beam_hint(y, weights)

    def nominal_weights(self, y: Tensor) -> Tensor:
        """Photon weights at :data:`~deft_ct.operators.ct.photons.NOISE_FREE_PHOTONS`, as of other ray transforms."""
        return PoissonNoise(photons=NOISE_FREE_PHOTONS).weights(y)

    def describe(self) -> dict[str, Any]:
        """Scan and grid in a few numbers, JSON-ready."""
        scan, grid = self.scan, self.grid
        return super().describe() | {
            "views": scan.data_shape[0], "detectors": list(scan.detectors), "detector_mm": list(scan.detector_mm),
            "feed_mm": scan.feed_mm, "image_shape": list(grid.image_shape), "voxel_zyx": list(grid.voxel_zyx),
            "z_mm": grid.z_mm,
        }  # fmt: skip


def covering_grid(scan: HelicalScan, grid: VolumeGrid) -> tuple[VolumeGrid, int]:
    """The grid with as many slices added at both ends as the rays of a scan reach.

    Args:
        scan: the views that are used.
        grid: the slices that are wanted.

    Returns:
        The larger grid, and the number of its slices below the wanted ones.
    """
    low, high = (float(end) for end in (_lowest(scan, grid).min(), _highest(scan, grid).max()))
    step, ends = grid.voxel_zyx[0], (float(grid.z[0]), float(grid.z[-1]))
    below, above = max(0, math.ceil((ends[0] - low) / step)), max(0, math.ceil((high - ends[1]) / step))
    return grid.slices(-below, grid.image_shape[0] + above), below


def views_through(scan: HelicalScan, grid: VolumeGrid) -> slice:
    """The consecutive views whose rays meet the volume.

    Raises:
        ValueError: there are none.
    """
    step = grid.voxel_zyx[0]  # interpolation reaches one voxel beyond the outer ones
    used = np.flatnonzero((_highest(scan, grid) >= grid.z[0] - step) & (_lowest(scan, grid) <= grid.z[-1] + step))
    if not len(used):
        raise ValueError(f"no view sees the slices from {grid.z[0]:g} to {grid.z[-1]:g} mm")
    return slice(int(used[0]), int(used[-1]) + 1)


def _lowest(scan: HelicalScan, grid: VolumeGrid) -> Array:
    """``(views,)`` lowest place along the axis that rays have over the pixels of a volume."""
    axial = scan.source_shifts[:, 1]
    return scan.z_mm + axial + np.minimum(scan.heights[0] - axial, 0.0) * _farthest(scan, grid)


def _highest(scan: HelicalScan, grid: VolumeGrid) -> Array:
    axial = scan.source_shifts[:, 1]
    return scan.z_mm + axial + np.maximum(scan.heights[-1] - axial, 0.0) * _farthest(scan, grid)


def _farthest(scan: HelicalScan, grid: VolumeGrid) -> float:
    """Largest share of the way from source to detector at which a ray is still over the pixels."""
    turn, _, out = np.abs(scan.source_shifts).max(0)
    radius = float(scan.radius_mm.max())
    return float((radius + out + grid.radius_mm) / (scan.source_to_detector_mm - out - radius * turn))
