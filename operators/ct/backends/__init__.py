"""Projection backends behind :class:`~deft_ct.operators.ct.RayTransform`, chosen by name."""

from __future__ import annotations

from collections.abc import Callable

from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.backends.matrix import MatrixBackend
from deft_ct.operators.ct.geometry import PlanarGeometry

__all__ = ["Backend", "backend_names", "make_backend"]


def _astra(geometry: PlanarGeometry) -> Backend:
    from deft_ct.operators.ct.backends.astra import AstraBackend

    return AstraBackend(geometry)


def _joseph(geometry: PlanarGeometry) -> Backend:
    from deft_ct.operators.ct.backends.joseph import JosephBackend

    return JosephBackend(geometry)


_BACKENDS: dict[str, Callable[[PlanarGeometry], Backend]] = {
    "matrix": MatrixBackend,
    "joseph": _joseph,
    "astra": _astra,
}


def backend_names() -> list[str]:
    """Names that :class:`~deft_ct.operators.ct.RayTransform` accepts, ``"auto"`` first."""
    return ["auto", *sorted(_BACKENDS)]


def make_backend(geometry: PlanarGeometry, name: str) -> Backend:
    """The backend called ``name`` for this geometry.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "auto":
        name = "matrix"
    if name not in _BACKENDS:
        raise ValueError(f"unknown backend {name!r}; choose one of {', '.join(backend_names())}")
    return _BACKENDS[name](geometry)
