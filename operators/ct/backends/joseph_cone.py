"""Matrix-free cone-beam backend for the CPU: Joseph's interpolation in three dimensions. Needs Numba."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.scan import VolumeRays
from deft_ct.operators.threads import run_tasks

_SLABS = 4  # tasks of a back-projection for each major axis; each one goes through all rays


def import_cone_kernels() -> Any:
    """The compiled kernels.

    Raises:
        ImportError: Numba is not installed.
    """
    try:
        from deft_ct.operators.ct.backends import _cone_kernels
    except ImportError as error:
        raise ImportError("the joseph backend needs Numba: pip install deft-ct[numba]") from error
    return _cone_kernels


class JosephConeBackend(Backend):
    """The weights of the ``matrix`` backend for cone beams: circular, helical or given by vectors; exact adjoint."""

    name = "joseph"

    def __init__(self, geometry: VolumeRays) -> None:
        self.geometry = geometry
        self._kernels = import_cone_kernels()
        self._shape = np.array(geometry.image_shape, np.int64)
        self._padded = tuple(int(n) + 3 for n in geometry.image_shape)  # one voxel below, two above for rounding
        self._strides = np.array([self._padded[1] * self._padded[2], self._padded[2], 1], np.int64)
        self._spacing = np.array(geometry.voxel_zyx)
        source, corner, row_step, column_step = geometry.poses()
        scale = np.array([1.0, -1.0, 1.0]) / self._spacing  # xyz reversed to (z, row, column); rows count downwards
        center = (self._shape - 1) / 2
        points = [center + p[:, ::-1] * scale for p in (source, corner)]
        steps = [p[:, ::-1] * scale for p in (row_step, column_step)]
        self._poses = np.stack([*points, *steps], 1)

    def __getstate__(self) -> dict[str, Any]:
        return {"geometry": self.geometry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["geometry"])  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, slices, rows, columns)`` to ``(N, views, detector rows, detector columns)``."""
        out = torch.empty(len(x), *self.geometry.sinogram_shape, dtype=x.dtype)
        views = self.geometry.sinogram_shape[0]
        for image, data in zip(x.detach().cpu(), out, strict=True):
            volume = torch.zeros(self._padded, dtype=x.dtype)
            volume[1:-2, 1:-2, 1:-2] = image
            common = (volume.reshape(-1).numpy(), self._shape, self._strides, self._spacing, self._poses)
            target = data.numpy()
            run_tasks(self._kernels.project_cone, [(*common, view, view + 1, target) for view in range(views)])
        return out.to(x.device)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map ``(N, views, detector rows, detector columns)`` to ``(N, slices, rows, columns)``."""
        out = []
        for data in y.detach().cpu().contiguous():
            total: NDArray[np.floating] | None = None
            for axis in range(3):
                # A volume for each major axis, so that slabs of one axis never write to the same voxel.
                volume = np.zeros(self._padded, data.numpy().dtype)
                edges = np.linspace(0, self._shape[axis], _SLABS + 1).astype(int)
                common = (volume.reshape(-1), self._shape, self._strides, self._spacing, self._poses, axis)
                tasks = [(*common, int(a), int(b), data.numpy()) for a, b in itertools.pairwise(edges) if b > a]
                run_tasks(self._kernels.backproject_cone, tasks)
                total = volume if total is None else total + volume
            assert total is not None
            out.append(torch.from_numpy(np.ascontiguousarray(total[1:-2, 1:-2, 1:-2])))
        return torch.stack(out).to(y.device) if out else y.new_empty((0, *self.geometry.image_shape))
