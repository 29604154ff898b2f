"""Projection backends behind :class:`~deft_ct.operators.ct.RayTransform`, chosen by name."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import get_args

import torch

from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.backends.choice import choose_backend
from deft_ct.operators.ct.backends.matrix import Kernel, MatrixBackend
from deft_ct.operators.ct.backends.symmetric import SymmetricBackend
from deft_ct.operators.ct.scan import VolumeRays
from deft_ct.operators.ct.system_matrix import Geometry
from deft_ct.operators.ct.vector_geometry import VectorFanGeometry

_LOGGER = logging.getLogger(__name__)

__all__ = ["Backend", "Kernel", "backend_names", "make_backend"]


def _astra(geometry: Geometry) -> Backend:
    if isinstance(geometry, VolumeRays):
        raise ValueError(
            "ASTRA has no 3D projector without a GPU; use backend='joseph' or 'matrix', or 'astra_cuda' with a GPU"
        )
    from deft_ct.operators.ct.backends.astra import AstraBackend

    return AstraBackend(geometry)


def _joseph(geometry: Geometry) -> Backend:
    if isinstance(geometry, VolumeRays):
        from deft_ct.operators.ct.backends.joseph_cone import JosephConeBackend

        return JosephConeBackend(geometry)
    from deft_ct.operators.ct.backends.joseph import JosephBackend

    return JosephBackend(geometry)


def _odl(geometry: Geometry) -> Backend:
    if isinstance(geometry, VolumeRays):
        raise ValueError("ODL has no 3D projector without a GPU; use backend='joseph' or 'matrix'")
    if isinstance(geometry, VectorFanGeometry):
        raise ValueError("ODL has no scans by vectors; use backend='joseph', 'matrix' or 'astra'")
    from deft_ct.operators.ct.backends.odl import OdlBackend

    return OdlBackend(geometry)


def _astra_cuda(geometry: Geometry) -> Backend:
    if isinstance(geometry, VectorFanGeometry):
        raise ValueError("backend 'astra_cuda' does not take fans by vectors; use 'joseph', 'matrix' or 'astra'")
    from deft_ct.operators.ct.backends.cuda import AstraCudaBackend

    return AstraCudaBackend(geometry)


def _tomosipo(geometry: Geometry) -> Backend:
    if isinstance(geometry, VectorFanGeometry):
        raise ValueError("backend 'tomosipo' does not take fans by vectors; use 'joseph', 'matrix' or 'astra'")
    from deft_ct.operators.ct.backends.cuda import TomosipoBackend

    return TomosipoBackend(geometry)


def _triton(geometry: Geometry, storage: torch.dtype = torch.float32) -> Backend:
    if isinstance(geometry, VolumeRays):
        raise ValueError("backend 'triton' is for parallel and fan beams; use 'matrix', 'joseph' or 'astra_cuda'")
    from deft_ct.operators.ct.backends.triton import TritonBackend

    return TritonBackend(geometry, storage)


_BACKENDS: dict[str, Callable[[Geometry], Backend]] = {
    "matrix": MatrixBackend,
    "joseph": _joseph,
    "astra": _astra,
    "astra_cuda": _astra_cuda,
    "odl": _odl,
    "symmetric": SymmetricBackend,
    "tomosipo": _tomosipo,
    "triton": _triton,
    "triton_fp16": functools.partial(_triton, storage=torch.float16),
}


def backend_names() -> list[str]:
    """Names that :class:`~deft_ct.operators.ct.RayTransform` accepts, ``"auto"`` first."""
    return ["auto", *sorted(_BACKENDS)]


def make_backend(geometry: Geometry, name: str, kernel: Kernel = "joseph") -> Backend:
    """The backend called ``name`` for this geometry.

    Raises:
        ValueError: the name or the kernel is unknown, or the backend does not have the kernel.
    """
    if kernel not in get_args(Kernel):
        raise ValueError(f"unknown kernel {kernel!r}; choose one of {', '.join(get_args(Kernel))}")
    if kernel == "strip":
        if name not in ("auto", "matrix"):
            raise ValueError(f"kernel 'strip' needs backend='matrix' (or 'auto'), got backend={name!r}")
        _LOGGER.info("ray transform of %s: backend matrix, which alone has the strip kernel", geometry.sinogram_shape)
        return MatrixBackend(geometry, kernel)
    if name == "auto":
        name, reason = choose_backend(geometry)
        _LOGGER.info("ray transform of %s: backend %s, because %s", geometry.sinogram_shape, name, reason)
    if name not in _BACKENDS:
        raise ValueError(f"unknown backend {name!r}; choose one of {', '.join(backend_names())}")
    return _BACKENDS[name](geometry)
