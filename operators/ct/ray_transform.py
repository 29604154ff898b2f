"""The ray transform of a scan geometry: differentiable, batched, in physical units."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.operators.base import LinearOperator
from deft_ct.operators.ct.backends import Kernel, make_backend
from deft_ct.operators.ct.backprojection import fbp
from deft_ct.operators.ct.cone import ConeGeometry
from deft_ct.operators.ct.fdk import fdk
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.system_matrix import Geometry


class RayTransform(LinearOperator):
    """Line integrals of images along the rays of a scan.

    Images are attenuation in 1/mm, so sinograms are dimensionless. Any number of leading axes are batch axes; a batch
    gives on the CPU the same bits as its images one by one. Differentiable in the image; to differentiate in the angles
    and offsets of the scan, use :func:`deft_ct.operators.ct.project`.

    Args:
        geometry: the scan.
        backend: ``"auto"``, or one of :func:`~deft_ct.operators.ct.backends.backend_names`.
        kernel: ``"joseph"``, interpolation along thin rays, or ``"strip"``: the mean over the width of each detector
            element, exact for square pixels (parallel beams, backend ``"matrix"``). Strips suit detector elements that
            are wider than a pixel, and keep the mass of every view. They take 1.25 times the memory where an element is
            as wide as a pixel; above 2 GB the matrix is built again, in blocks of views, for every product.

    Attributes:
        geometry: the scan.
        backend: name of the backend in use.
        kernel: ``"joseph"`` or ``"strip"``.
        matched: whether the adjoint is exact; it is for every CPU backend.

    Raises:
        ValueError: an unknown backend or kernel, or one that cannot do this geometry.
        ImportError: the backend's optional package is missing; the message names the extra.
    """

    def __init__(self, geometry: Geometry, backend: str = "auto", *, kernel: Kernel = "joseph") -> None:
        if not isinstance(geometry, PlanarGeometry | ConeGeometry):
            raise TypeError(
                f"geometry must be a ParallelGeometry, FanGeometry or ConeGeometry, got {type(geometry).__name__}"
            )
        super().__init__(geometry.image_shape, geometry.sinogram_shape)
        self.geometry = geometry
        self._backend = make_backend(geometry, backend, kernel)
        self.backend = self._backend.name
        self.kernel = kernel
        self.matched = self._backend.matched
        # Nothing is stored in it: it carries the device that ``.to(...)`` asks for.
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    def extra_repr(self) -> str:
        """Geometry and backend, for ``print``."""
        return f"{self.geometry}, backend={self.backend!r}, kernel={self.kernel!r}"

    def _forward_kernel(self, x: Tensor) -> Tensor:
        self._check_dtype(x)
        return self._backend.forward(x)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        self._check_dtype(y)
        return self._backend.adjoint(y)

    def _check_dtype(self, x: Tensor) -> None:
        if x.dtype not in self._backend.dtypes:
            raise TypeError(
                f"RayTransform: backend {self.backend!r} computes in {self._backend.dtypes}, got {x.dtype}; convert "
                f'the tensor or use backend="matrix"'
            )

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Filtered back-projection (FDK for cone beams) with the Ram-Lak filter, ``(..., *range_shape)`` to 1/mm."""
        if isinstance(self.geometry, ConeGeometry):
            return fdk(y, self.geometry)
        return fbp(y, self.geometry)
