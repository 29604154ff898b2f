"""Which backend ``"auto"`` takes, and why."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import torch

from deft_ct.operators.ct.backends.matrix import STORED_BYTES, gpu_budget
from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry
from deft_ct.operators.ct.system_matrix import Geometry, joseph_nonzeros

SMALL_BYTES = 10**9
"""Up to this size the two matrices are stored on a CPU, where they are the fastest form; more is much memory."""


class BackendChoice(NamedTuple):
    """A backend's name and the reason for taking it."""

    name: str
    reason: str


def matrix_bytes(geometry: Geometry) -> int:
    """Upper bound of the memory of the float32 system matrix and its transpose."""
    return 16 * joseph_nonzeros(geometry)


def choose_backend(geometry: Geometry) -> BackendChoice:
    """The backend for a geometry, from the size of its matrix, the device and the installed packages."""
    size = matrix_bytes(geometry)
    limit, where = SMALL_BYTES, "the limit for stored matrices"
    if torch.cuda.is_available():
        limit, where = gpu_budget(torch.device("cuda")), "a quarter of the GPU's memory"
    megabytes = f"the matrices take up to {size / 1e6:.0f} MB"
    if size <= limit:
        return BackendChoice("matrix", f"{megabytes}, within {where} ({limit / 1e6:.0f} MB)")
    if importlib.util.find_spec("numba") is not None:
        return BackendChoice("joseph", f"{megabytes}, above {where} ({limit / 1e6:.0f} MB); Numba is installed")
    if size <= max(limit, STORED_BYTES):
        return BackendChoice("matrix", f"{megabytes}; Numba, which would do without them, is not installed")
    planar = isinstance(geometry, ParallelGeometry) or (
        isinstance(geometry, FanGeometry)
        and geometry.detector == "flat"
        and geometry.pixel_rc[0] == geometry.pixel_rc[1]
    )
    if planar and importlib.util.find_spec("astra") is not None:
        return BackendChoice("astra", f"{megabytes}, too much; Numba is not installed, ASTRA is")
    return BackendChoice(
        "matrix", f"{megabytes}, too much: rebuilt in blocks for every call. Install deft-ct[numba] for speed"
    )
