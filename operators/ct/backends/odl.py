"""ODL's ray transform as a backend, on its ASTRA CPU projectors; for comparisons, one slice a call."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import torch
from torch import Tensor

from deft_ct.operators.ct.backends.astra import import_astra, require_square_pixels
from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.convert import to_odl
from deft_ct.operators.ct.geometry import FanGeometry, PlanarGeometry
from deft_ct.operators.interop import FromODL


class OdlBackend(Backend):
    """``RayTransform(..., impl="astra_cpu")`` of ODL; its weighted adjoint is converted to the plain transpose."""

    name = "odl"
    dtypes = (torch.float32,)

    def __init__(self, geometry: PlanarGeometry) -> None:
        self.geometry = geometry
        if isinstance(geometry, FanGeometry):
            if geometry.detector == "curved":
                raise ValueError("ODL's CPU projectors have no curved detector; use backend='matrix'")
            require_square_pixels(geometry)
        elif geometry.detector_offset_mm != geometry.axis_offset_mm:
            # Measured with ODL 1.0: its conversion to ASTRA drops the offset of a parallel detector without a word.
            raise ValueError(
                "ODL's CPU projector ignores the offset of a parallel detector; use backend='astra' or 'matrix'"
            )
        space, scan = to_odl(geometry)
        import_astra()
        tomo: Any = importlib.import_module("odl.applications.tomo")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ODL advises against CPU projectors
            self._odl = FromODL(tomo.RayTransform(space, scan, impl="astra_cpu"))

    def __getstate__(self) -> dict[str, Any]:
        return {"geometry": self.geometry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["geometry"])  # type: ignore[misc]  # ODL's operators cannot be pickled

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, H, W)`` to ``(N, views, detectors)``."""
        return self._odl(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map ``(N, views, detectors)`` to ``(N, H, W)``."""
        return self._odl.adjoint(y)
