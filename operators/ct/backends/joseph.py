"""Matrix-free backend: Joseph's interpolation computed on the fly, eight images at once. Needs Numba."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.rays import joseph_rays
from deft_ct.operators.ct.vector_geometry import VectorFanGeometry
from deft_ct.operators.threads import run_tasks

_LINES = 32  # image lines of one back-projection task: 32 * 256 pixels * 8 lanes * 4 B stay in the L2 cache
_RAYS = 4096  # rays of one projection task


def import_kernels() -> Any:
    """The compiled kernels.

    Raises:
        ImportError: Numba is not installed.
    """
    try:
        from deft_ct.operators.ct.backends import _vector_kernels
    except ImportError as error:
        raise ImportError("the joseph backend needs Numba: pip install deft-ct[numba]") from error
    return _vector_kernels


@dataclass(frozen=True)
class _Direction:
    """The rays of one major axis, and the padded shape of the image that they walk through."""

    rays: NDArray[np.int64]
    lines: int
    cells: int


class JosephBackend(Backend):
    """The same weights as the ``matrix`` backend without storing them; exact adjoint, float32 and float64, CPU."""

    name = "joseph"

    def __init__(self, geometry: PlanarGeometry | VectorFanGeometry) -> None:
        self.geometry = geometry
        self._kernels = import_kernels()
        rays = joseph_rays(geometry.rays(), geometry.image_shape, geometry.pixel_rc)
        height, width = geometry.image_shape
        self._directions = (
            _Direction(np.flatnonzero(~rays.by_column), height, width),
            _Direction(np.flatnonzero(rays.by_column), width, height),
        )
        self._start, self._slope = rays.start + 1, rays.slope  # one cell of padding on the left
        self._weight = rays.weight
        self._first, self._last = rays.first, rays.last

    def __getstate__(self) -> dict[str, Any]:
        return {"geometry": self.geometry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["geometry"])  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, H, W)`` to ``(N, views, detectors)``."""
        rows = self._start.size
        parts = []
        for block, lanes in _lane_blocks(x):
            out = np.empty((rows, lanes), _dtype(x))
            for transposed, direction in enumerate(self._directions):
                if direction.rays.size:
                    image = _padded(block.mT if transposed else block, lanes)
                    run_tasks(
                        self._kernels.project_rays, self._tasks(image, direction, out, direction.rays.size, _RAYS)
                    )
            parts.append(torch.from_numpy(out)[:, : len(block)].t())
        return _joined(parts, x).reshape(len(x), *self.geometry.sinogram_shape).to(x.device)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map ``(N, views, detectors)`` to ``(N, H, W)``."""
        parts = []
        for block, lanes in _lane_blocks(y):
            data = np.zeros((self._start.size, lanes), _dtype(y))
            torch.from_numpy(data)[:, : len(block)] = block.flatten(1).t()
            total: Tensor | None = None
            for transposed, direction in enumerate(self._directions):
                if direction.rays.size:
                    image = np.zeros((direction.lines, direction.cells + 3, lanes), data.dtype)
                    run_tasks(
                        self._kernels.backproject_rays, self._tasks(image, direction, data, direction.lines, _LINES)
                    )
                    inner = torch.from_numpy(image)[:, 1 : direction.cells + 1, : len(block)]
                    inner = inner.permute(2, 1, 0) if transposed else inner.permute(2, 0, 1)
                    total = inner if total is None else total + inner
            parts.append(total if total is not None else block.new_zeros((len(block), *self.geometry.image_shape)))
        return _joined(parts, y).reshape(len(y), *self.geometry.image_shape).to(y.device)

    def _tasks(
        self, image: NDArray[np.floating], direction: _Direction, values: NDArray[np.floating], count: int, size: int
    ) -> list[tuple[Any, ...]]:
        """The arguments of a kernel for parts of ``size``; each task writes to its own part."""
        common = (image, direction.rays, self._start, self._slope, self._weight, self._first, self._last)
        return [(*common, begin, min(begin + size, count), values) for begin in range(0, count, size)]


def _lane_blocks(x: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Blocks of at most 8 images, each with the number of lanes of the kernel that takes it."""
    for block in x.detach().cpu().split(8):
        if len(block):
            yield block, next(lanes for lanes in (1, 4, 8) if lanes >= len(block))


def _padded(block: Tensor, lanes: int) -> NDArray[np.floating]:
    """``(n, lines, cells)`` batch-last, with zeros around the minor axis so that the kernels need no bounds check."""
    _, lines, cells = block.shape
    image = np.empty((lines, cells + 3, lanes), _dtype(block))
    inner = torch.from_numpy(image)
    inner[:, 0] = 0
    inner[:, cells + 1 :] = 0
    inner[:, 1 : cells + 1, len(block) :] = 0
    inner[:, 1 : cells + 1, : len(block)] = block.permute(1, 2, 0)
    return image


def _joined(parts: list[Tensor], like: Tensor) -> Tensor:
    if not parts:
        return like.new_empty(0)
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).contiguous()


def _dtype(x: Tensor) -> type[np.floating]:
    return np.float64 if x.dtype == torch.float64 else np.float32
