"""Sparse-matrix backend: a whole batch at once, as one sparse product with the batch as the last axis."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.system_matrix import CSR, joseph_matrix

CHUNK = 16
"""Columns of one sparse product: wider ones fall out of the cache (measured: 8 to 16 is best)."""

_NUMPY: dict[torch.dtype, type[np.floating]] = {torch.float32: np.float32, torch.float64: np.float64}


class MatrixPair:
    """The system matrix and its transpose for one geometry, built on first use for each type and device."""

    def __init__(self, geometry: PlanarGeometry) -> None:
        self.geometry = geometry
        self._csr: dict[torch.dtype, CSR] = {}
        self._torch: dict[tuple[torch.dtype, torch.device, bool], Tensor] = {}

    def csr(self, dtype: torch.dtype) -> CSR:
        """The system matrix as NumPy arrays."""
        if dtype not in self._csr:
            self._csr[dtype] = joseph_matrix(self.geometry, _NUMPY[dtype])
        return self._csr[dtype]

    def get(self, dtype: torch.dtype, device: torch.device, *, transpose: bool) -> Tensor:
        """The matrix (or its transpose, stored apart) as a CSR tensor."""
        key = (dtype, device, transpose)
        if key not in self._torch:
            csr = self.csr(dtype)
            self._torch[key] = (csr.transposed() if transpose else csr).to_torch(device)
        return self._torch[key]


_PAIRS: weakref.WeakValueDictionary[PlanarGeometry, MatrixPair] = weakref.WeakValueDictionary()


def matrix_pair(geometry: PlanarGeometry) -> MatrixPair:
    """The matrices of a geometry, shared by all operators of equal geometry for as long as one of them lives."""
    pair = _PAIRS.get(geometry)
    if pair is None:
        pair = _PAIRS[geometry] = MatrixPair(geometry)
    return pair


def batch_last_product(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix @ x`` for every row of ``x``: ``(N, columns) -> (N, rows)``, with the batch as the last axis inside.

    Each output is summed in the order of the stored row, so a batch gives the same bits as its images one by one.
    """
    if not len(x):
        return x.new_empty(0, matrix.shape[0])
    parts = [(matrix @ block.t().contiguous()).t() for block in x.split(CHUNK)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).contiguous()


class MatrixBackend(Backend):
    """Joseph's interpolation as a sparse matrix; exact adjoint, CPU and CUDA, float32 and float64."""

    name = "matrix"

    def __init__(self, geometry: PlanarGeometry) -> None:
        self.geometry = geometry
        self._pair = matrix_pair(geometry)

    def __getstate__(self) -> dict[str, Any]:
        return {"geometry": self.geometry}  # the matrices are cheaper to rebuild than to send

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.geometry = state["geometry"]
        self._pair = matrix_pair(self.geometry)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, H, W)`` to ``(N, views, detectors)``."""
        matrix = self._pair.get(x.dtype, x.device, transpose=False)
        return batch_last_product(matrix, x.flatten(1)).reshape(len(x), *self.geometry.sinogram_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map ``(N, views, detectors)`` to ``(N, H, W)``."""
        matrix = self._pair.get(y.dtype, y.device, transpose=True)
        return batch_last_product(matrix, y.flatten(1)).reshape(len(y), *self.geometry.image_shape)
