"""The ray transform of a scan geometry: differentiable, batched, in physical units."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.circulant import circulant
from deft_ct.operators.ct.backends import Kernel, make_backend
from deft_ct.operators.ct.backprojection import fbp
from deft_ct.operators.ct.cone import ConeGeometry
from deft_ct.operators.ct.diagnosis import diagnose_scan
from deft_ct.operators.ct.fdk import fdk
from deft_ct.operators.ct.features import planar_scan_features
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.photons import NOISE_FREE_PHOTONS
from deft_ct.operators.ct.scan import RayGeometry, VolumeRays
from deft_ct.operators.ct.system_matrix import Geometry
from deft_ct.operators.ct.tv_hint import total_variation_hint
from deft_ct.operators.ct.unseen import unseen_beside_flat, unseen_pixels
from deft_ct.operators.ct.view_order import view_order
from deft_ct.operators.findings import Diagnosis, RegularisationHint
from deft_ct.operators.image_values import ATTENUATION, ImageValues
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.memory import check_memory
from deft_ct.operators.noise import PoissonNoise
from deft_ct.operators.row_order import RowOrder

_RAY_BYTES = 48
"""Memory of a ray at least: where it starts, its direction and weight, and its value."""


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

    _anchor: Tensor

    def __init__(self, geometry: Geometry, backend: str = "auto", *, kernel: Kernel = "joseph") -> None:
        if not isinstance(geometry, RayGeometry):
            raise TypeError(
                f"geometry must be a ParallelGeometry, FanGeometry or ConeGeometry, or one by vectors, got "
                f"{type(geometry).__name__}"
            )
        super().__init__(geometry.image_shape, geometry.sinogram_shape)
        views, *elements = geometry.sinogram_shape
        check_memory(
            _RAY_BYTES * views * math.prod(elements) + 4 * math.prod(geometry.image_shape),
            f"a scan with {views} views of {' x '.join(map(str, elements))} detector elements",
            "take fewer views or detector elements",
        )
        self.geometry = geometry
        self._backend = make_backend(geometry, backend, kernel)
        self.backend = self._backend.name
        self.kernel = kernel
        self.matched = self._backend.matched
        # Nothing is stored in it: it carries the device that ``.to(...)`` asks for.
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        self._unseen: Tensor | None = None
        self._knows_unseen = False

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
        """Filtered back-projection (FDK for cone beams) with the Ram-Lak filter, ``(..., *range_shape)`` to 1/mm.

        For scans given by vectors the least-squares solution by conjugate gradients.
        """
        if isinstance(self.geometry, PlanarGeometry):
            return fbp(y, self.geometry)
        return fdk(y, self.geometry) if isinstance(self.geometry, ConeGeometry) else super().pseudo_inverse(y)

    def refined(self, factor: int) -> RayTransform:
        """The same scan on an image grid and detector ``factor`` times finer; see ``ScanGeometry.refined``."""
        return RayTransform(self.geometry.refined(factor), self.backend, kernel=self.kernel)

    def describe(self) -> dict[str, Any]:
        """Geometry, backend and kernel, JSON-ready."""
        return super().describe() | {
            "geometry": self.geometry.to_dict(), "backend": self.backend, "kernel": self.kernel
        }  # fmt: skip

    def diagnose(self, y: Tensor, weights: Tensor | None = None) -> Diagnosis:
        """Look for faults in line integrals, see :func:`~deft_ct.operators.ct.diagnosis.diagnose_scan`."""
        return diagnose_scan(y, self.geometry, weights, self)

    def row_order(self) -> RowOrder | None:
        """The views by angle, see :func:`~deft_ct.operators.ct.view_order.view_order`; None for others."""
        return view_order(self.geometry) if isinstance(self.geometry, PlanarGeometry) else None

    def features(self, y: Tensor, weights: Tensor | None) -> Tensor:
        """See :func:`~deft_ct.operators.ct.features.planar_scan_features`.

        Raises:
            ValueError: a cone beam, or a scan given by vectors.
        """
        if not isinstance(self.geometry, PlanarGeometry):
            what = "a cone beam" if isinstance(self.geometry, ConeGeometry) else "a scan given by vectors"
            raise ValueError(f"networks that are conditioned on the scan are for parallel and fan beams, got {what}")
        return planar_scan_features(self.geometry, y, weights)

    def unseen(self) -> Tensor | None:
        """Pixels or voxels that no ray meets, see :mod:`deft_ct.operators.ct.unseen`."""
        if not self._knows_unseen:
            ones = torch.ones((1, *self.range_shape), dtype=torch.float32, device=self._anchor.device)
            weight = self._adjoint_kernel(ones)[0]
            if isinstance(self.geometry, PlanarGeometry):
                self._unseen = unseen_pixels(self.geometry, weight)
            else:
                self._unseen = unseen_beside_flat(self.geometry, weight)
        self._knows_unseen = True
        return None if self._unseen is None else self._unseen.to(self._anchor.device)

    def nominal_weights(self, y: Tensor) -> Tensor:
        """Photon weights at :data:`~deft_ct.operators.ct.photons.NOISE_FREE_PHOTONS`.

        With weights of one, any penalty that suits noisy scans would flatten the image.
        """
        return PoissonNoise(photons=NOISE_FREE_PHOTONS).weights(y)

    @property
    def grid_spacing(self) -> tuple[float, ...]:
        """Pixel or voxel size along each axis of the images, mm."""
        return tuple(float(step) for step in np.atleast_1d(self.geometry.pixel_mm))

    @property
    def image_values(self) -> ImageValues:
        """Attenuation in 1/mm."""
        return ATTENUATION

    def regularisation_hint(self, y: Tensor, weights: Tensor | None) -> RegularisationHint:
        """See :func:`~deft_ct.operators.ct.tv_hint.total_variation_hint`."""
        return total_variation_hint(self.geometry, y, weights)

    def first_guess(self, y: Tensor) -> Tensor:
        """Hann-filtered back-projection, FDK for cone beams on a circle; zero for a helix and scans by vectors."""
        if isinstance(self.geometry, PlanarGeometry):
            return fbp(y, self.geometry, filter="hann")
        if isinstance(self.geometry, ConeGeometry) and not self.geometry.pitch_mm:
            return fdk(y, self.geometry, filter="hann")
        return super().first_guess(y)

    def preconditioner(self, like: Tensor) -> Callable[[Tensor], Tensor] | None:
        """The circulant approximation of planar scans, see :func:`~deft_ct.operators.circulant.circulant`."""
        return None if isinstance(self.geometry, VolumeRays) else circulant(self, like)
