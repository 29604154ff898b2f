"""Projectors of ASTRA and tomosipo on a GPU, on torch's memory, without copies to the host.

Their back-projection is not the exact transpose of their projection (``matched`` is False). Both are GPL-3 and
optional. Without a GPU their 3D calls end the process and their 2D calls return zeros, so every way to them leads
through :func:`require_cuda`.
"""

from __future__ import annotations

import abc
import functools
from typing import Any

import torch
from torch import Tensor

from deft_ct.operators.ct.backends.astra import import_astra, require_square_pixels
from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.convert import import_tomosipo, to_astra, to_astra_3d, to_tomosipo
from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry
from deft_ct.operators.ct.scan import VolumeRays
from deft_ct.operators.ct.system_matrix import Geometry


def require_cuda(backend: str) -> Any:
    """The ``astra`` module, once it is sure that ASTRA has a GPU.

    Raises:
        ImportError: ASTRA is not installed.
        RuntimeError: ASTRA finds no GPU, or torch has none.
    """
    astra = import_astra()
    if not torch.cuda.is_available() or not astra.use_cuda():
        raise RuntimeError(
            f"backend {backend!r} needs a CUDA device that both torch and ASTRA can use; there is none here: take "
            "backend='matrix', 'joseph' or 'astra'"
        )
    return astra


class CudaBackend(Backend):
    """What the two share: layouts, batches, and checks that something was computed at all.

    Parallel beams go as one stack: a batch is the slices of a volume. Cones go one by one. The rows of ASTRA's volumes
    count upwards, so images are flipped, on the GPU.
    """

    matched = False
    dtypes = (torch.float32,)

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self._prepare()

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Check that the geometry and the machine will do."""

    @abc.abstractmethod
    def _apply(self, slices: int, source: Tensor, out: Tensor, *, adjoint: bool) -> None:
        """Project ``(slices, H, W)`` into ``(rows, views, columns)``, or back."""

    def __getstate__(self) -> dict[str, Any]:
        return {"geometry": self.geometry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["geometry"])  # type: ignore[misc]  # projectors live in the process

    def forward(self, x: Tensor) -> Tensor:
        """Map images on the GPU to sinograms."""
        self._check(x)
        out = x.new_full((len(x), *self.geometry.sinogram_shape), torch.nan)
        if isinstance(self.geometry, VolumeRays):
            for image, sinogram in zip(x.flip(-2), out, strict=True):
                rows_first = torch.full_like(sinogram.movedim(1, 0), torch.nan, memory_format=torch.contiguous_format)
                self._apply(len(image), image, rows_first, adjoint=False)
                sinogram.copy_(rows_first.movedim(0, 1))
        elif len(x):
            self._apply(len(x), x.flip(-2), out, adjoint=False)
        return _computed(out, self.name)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map sinograms on the GPU to images, by an approximate transpose."""
        self._check(y)
        out = y.new_full((len(y), *self.geometry.image_shape), torch.nan)
        if isinstance(self.geometry, VolumeRays):
            for image, sinogram in zip(out, y, strict=True):
                self._apply(len(image), sinogram.movedim(1, 0).contiguous(), image, adjoint=True)
        elif len(y):
            self._apply(len(y), y.contiguous(), out, adjoint=True)
        return _computed(out, self.name).flip(-2)

    def _check(self, x: Tensor) -> None:
        if not x.is_cuda:
            raise ValueError(f"backend {self.name!r} works on CUDA tensors, got one on {x.device}: use .to('cuda')")


class TomosipoBackend(CudaBackend):
    """tomosipo: parallel beams and cones."""

    name = "tomosipo"

    def _prepare(self) -> None:
        if isinstance(self.geometry, FanGeometry):
            raise ValueError("tomosipo has no fan beam of one slice; use backend='astra_cuda' or 'matrix'")
        require_cuda(self.name)
        self._ts = import_tomosipo()
        import tomosipo.torch_support  # noqa: F401  (teaches tomosipo torch tensors)

        # A geometry for each batch size; the last few are kept.
        self._operator = functools.lru_cache(maxsize=4)(self._make)

    def _make(self, slices: int) -> Any:
        stack = slices if isinstance(self.geometry, ParallelGeometry) else 1
        return self._ts.operator(*to_tomosipo(self.geometry, stack))

    def _apply(self, slices: int, source: Tensor, out: Tensor, *, adjoint: bool) -> None:
        operator = self._operator(slices)
        (operator.T if adjoint else operator)(source.detach().contiguous(), out=out)


class AstraCudaBackend(CudaBackend):
    """ASTRA: parallel beams as a stack of slices, flat fan beams one by one in two dimensions, cones."""

    name = "astra_cuda"

    def _prepare(self) -> None:
        if isinstance(self.geometry, FanGeometry):
            require_square_pixels(self.geometry)
            to_astra(self.geometry)  # refuses curved detectors, before the GPU is asked for
        self._astra = require_cuda(self.name)
        self._ids: dict[int, int] = {}

    def __del__(self) -> None:
        # At the end of the process ASTRA may be gone before its projectors.
        kind = "projector" if isinstance(self.geometry, FanGeometry) else "projector3d"
        for number in getattr(self, "_ids", {}).values():
            getattr(self._astra, kind).delete(number)

    def _projector(self, slices: int) -> int:
        if slices not in self._ids:
            if isinstance(self.geometry, FanGeometry):
                volume, projection = to_astra(self.geometry)
                kind = "cuda"
            else:
                stack = slices if isinstance(self.geometry, ParallelGeometry) else 1
                volume, projection = to_astra_3d(self.geometry, stack)
                kind = "cuda3d"
            self._ids[slices] = self._astra.create_projector(kind, projection, volume)
        return self._ids[slices]

    def _apply(self, slices: int, source: Tensor, out: Tensor, *, adjoint: bool) -> None:
        if isinstance(self.geometry, FanGeometry):
            direct = self._astra.projector.direct_BP if adjoint else self._astra.projector.direct_FP
            number = self._projector(1)
            # The rows of ASTRA's two-dimensional images count downwards, as ours: take back the flip.
            source = source if adjoint else source.flip(-2)
            for one, result in zip(source, out, strict=True):
                direct(number, one.detach().contiguous(), out=result)
            if adjoint:
                out.copy_(out.flip(-2))
            return
        direct = self._astra.projector3d.direct_BP if adjoint else self._astra.projector3d.direct_FP
        direct(self._projector(slices), source.detach().contiguous(), out=out)


def _computed(out: Tensor, name: str) -> Tensor:
    """The result, unless nothing was written: ASTRA does not report every failure (too little GPU memory)."""
    if out.numel() and bool(torch.isnan(out.flatten()[:: max(1, out.numel() // 64)]).any()):
        raise RuntimeError(f"backend {name!r} returned no result: too little GPU memory, or NaN in the input")
    return out
