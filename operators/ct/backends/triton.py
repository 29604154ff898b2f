"""Backend for a GPU that stores no matrix: a pair of Triton kernels for parallel and fan beams. Needs Triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.backends.ray_windows import RayArrays, RayWindows, ray_arrays, ray_windows
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.rays import joseph_rays
from deft_ct.operators.ct.vector_geometry import VectorFanGeometry

_MOST_VALUES = 2**31 - 1
"""Values of a batch that 32-bit offsets reach; larger batches go in parts."""


@dataclass(frozen=True)
class Tile:
    """What one program of a kernel works on; powers of two.

    Attributes:
        rows: views, or rows of the image.
        columns: detector elements, or columns of the image.
        lanes: images of the batch, at most.
        warps: groups of 32 threads.
    """

    rows: int
    columns: int
    lanes: int
    warps: int


FORWARD_TILE = Tile(rows=4, columns=16, lanes=64, warps=8)
ADJOINT_TILE = Tile(rows=8, columns=8, lanes=64, warps=8)


def import_triton_kernels() -> Any:
    """The kernels.

    Raises:
        ImportError: Triton is not installed.
    """
    try:
        from deft_ct.operators.ct.backends import _triton_kernels
    except ImportError as error:
        raise ImportError("the triton backend needs Triton: pip install deft-ct[triton]") from error
    return _triton_kernels


class TritonBackend(Backend):
    """The weights of the ``matrix`` backend in single precision, computed on the GPU; exact adjoint, CUDA.

    For each pixel and view it keeps two bytes, where the matrices take about 30.

    Args:
        geometry: the scan.
        storage: what the kernels read. With ``torch.float16`` images and sinograms are rounded to 11 bits on their
            way in, each scaled by a power of two so that it fits; sums and results are float32.

    Attributes:
        forward_tile: what a program of the projection works on; it changes the speed and no number.
        adjoint_tile: that of the back-projection.
    """

    dtypes = (torch.float32,)

    def __init__(self, geometry: PlanarGeometry | VectorFanGeometry, storage: torch.dtype = torch.float32) -> None:
        self.geometry = geometry
        self.storage = storage
        self.name = "triton" if storage == torch.float32 else "triton_fp16"
        self.forward_tile, self.adjoint_tile = FORWARD_TILE, ADJOINT_TILE
        self._kernels = import_triton_kernels()
        self._rays: dict[torch.device, RayArrays] = {}
        self._windows: dict[torch.device, RayWindows] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"geometry": self.geometry, "storage": self.storage}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["geometry"], state["storage"])  # type: ignore[misc]  # cheaper to rebuild than to send

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, H, W)`` to ``(N, views, detectors)``."""
        return self._in_parts(x, self.geometry.sinogram_shape, self._project)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map ``(N, views, detectors)`` to ``(N, H, W)``."""
        return self._in_parts(y, self.geometry.image_shape, self._backproject)

    def _in_parts(self, x: Tensor, shape: tuple[int, int], apply: Any) -> Tensor:
        if not x.is_cuda and not self._kernels.INTERPRETED:
            raise ValueError(f"backend {self.name!r} works on CUDA tensors, got one on {x.device}: use .to('cuda')")
        if not len(x):
            return x.new_zeros((0, *shape))
        largest = max(x[0].numel(), shape[0] * shape[1])
        with torch.cuda.device_of(x):
            parts = [self._batch_last(part, shape, apply) for part in x.split(max(1, _MOST_VALUES // largest))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _batch_last(self, x: Tensor, shape: tuple[int, int], apply: Any) -> Tensor:
        """Apply a kernel to ``(*shape, N)``, in the type of the storage."""
        scale = None
        if self.storage != x.dtype:
            scale = torch.exp2(torch.frexp(x.flatten(1).abs().amax(1)).exponent.to(x.dtype))[:, None, None]
            x = (x / scale).to(self.storage)
        out = torch.empty((*shape, len(x)), device=x.device)
        apply(x.permute(1, 2, 0).contiguous(), out)
        out = out.permute(2, 0, 1)
        return out.contiguous() if scale is None else out * scale

    def _project(self, image: Tensor, out: Tensor) -> None:
        (height, width, batch), (views, elements) = image.shape, self.geometry.sinogram_shape
        rays, tile = self._rays_on(image.device), self.forward_tile
        lanes = min(tile.lanes, _next_power_of_two(batch))
        grid = (-(-elements // tile.columns), -(-views // tile.rows), -(-batch // lanes))
        self._kernels.project_batch[grid](
            image, out, rays.start, rays.slope, rays.weight, rays.axis, rays.first, rays.last,
            views, elements, height, width, batch,
            VIEWS=tile.rows, ELEMENTS=tile.columns, LANES=lanes, num_warps=tile.warps, enable_fp_fusion=False,
        )  # fmt: skip

    def _backproject(self, data: Tensor, out: Tensor) -> None:
        (views, elements, batch), (height, width) = data.shape, self.geometry.image_shape
        rays, windows, tile = self._rays_on(data.device), self._windows_on(data.device), self.adjoint_tile
        lanes = min(tile.lanes, _next_power_of_two(batch))
        grid = (-(-width // tile.columns), -(-height // tile.rows), -(-batch // lanes))
        self._kernels.backproject_batch[grid](
            data, out, rays.start, rays.slope, rays.weight, windows.first, windows.view, windows.axis,
            views, elements, height, width, batch, len(windows.view),
            NEAR=windows.most, ROWS=tile.rows, COLUMNS=tile.columns, LANES=lanes,
            num_warps=tile.warps, enable_fp_fusion=False,
        )  # fmt: skip

    def _rays_on(self, device: torch.device) -> RayArrays:
        if device not in self._rays:
            geometry = self.geometry
            rays = joseph_rays(geometry.rays(), geometry.image_shape, geometry.pixel_rc)
            self._rays[device] = ray_arrays(rays, geometry.image_shape, geometry.sinogram_shape, device)
        return self._rays[device]

    def _windows_on(self, device: torch.device) -> RayWindows:
        if device not in self._windows:
            self._windows[device] = ray_windows(self._rays_on(device), self.geometry.image_shape)
        return self._windows[device]


def _next_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
