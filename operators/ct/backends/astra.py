"""ASTRA's CPU projectors as a backend: one slice a call, several slices at once in a thread pool.

ASTRA is GPL-3 and optional. Only its two-dimensional CPU projectors are used here: without a GPU its 3D and CUDA calls
end the process or return zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry, PlanarGeometry
from deft_ct.operators.ct.vector_geometry import VectorFanGeometry
from deft_ct.operators.threads import run_tasks


def import_astra() -> Any:
    """The ``astra`` module.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import astra
    except ImportError as error:
        raise ImportError("this needs the ASTRA toolbox: pip install deft-ct[astra]") from error
    return astra


def require_square_pixels(geometry: FanGeometry | VectorFanGeometry) -> None:
    """Raise a ValueError unless ASTRA's fan projectors can do this pixel."""
    if geometry.pixel_rc[0] != geometry.pixel_rc[1]:
        raise ValueError(f"ASTRA's fan projector needs square pixels, got {geometry.pixel_rc} mm; use backend='matrix'")


class AstraBackend(Backend):
    """ASTRA on the CPU: Joseph (``linear``) for parallel beams, ray lengths (``line_fanflat``) for flat fan beams."""

    name = "astra"
    dtypes = (torch.float32,)

    def __init__(self, geometry: PlanarGeometry | VectorFanGeometry) -> None:
        from deft_ct.operators.ct.convert import to_astra

        self.geometry = geometry
        self._astra = import_astra()
        if isinstance(geometry, FanGeometry | VectorFanGeometry):
            require_square_pixels(geometry)
        volume, projection = to_astra(geometry)
        kind = "linear" if isinstance(geometry, ParallelGeometry) else "line_fanflat"
        self._id = self._astra.create_projector(kind, projection, volume)

    def __del__(self) -> None:
        if hasattr(self, "_id"):
            self._astra.projector.delete(self._id)

    def __getstate__(self) -> dict[str, Any]:
        return {"geometry": self.geometry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["geometry"])  # type: ignore[misc]  # the projector lives in the process

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, H, W)`` to ``(N, views, detectors)``."""
        out = torch.empty((len(x), *self.geometry.sinogram_shape), dtype=torch.float32)
        return self._each(self._astra.projector.direct_FP, x, out)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map ``(N, views, detectors)`` to ``(N, H, W)``."""
        out = torch.empty((len(y), *self.geometry.image_shape), dtype=torch.float32)
        return self._each(self._astra.projector.direct_BP, y, out)

    def _each(self, project: Callable[..., Any], source: Tensor, out: Tensor) -> Tensor:
        device = source.device
        source = source.detach().cpu().contiguous()

        def one(i: int) -> None:
            project(self._id, source[i], out=out[i])

        run_tasks(one, [(i,) for i in range(len(source))])
        return out.to(device)
