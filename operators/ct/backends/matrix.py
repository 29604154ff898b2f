"""Sparse-matrix backend: a whole batch at once, as one sparse product with the batch as the last axis."""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.backends.batch_product import batch_last_product
from deft_ct.operators.ct.backends.packed_rows import PackedRows, StoredMatrix, bytes_kept, stored_matrix
from deft_ct.operators.ct.strip_matrix import strip_matrix, strip_nonzeros
from deft_ct.operators.ct.system_matrix import CSR, Geometry, joseph_matrix, joseph_nonzeros

Kernel = Literal["joseph", "strip"]

STORED_BYTES = 2 * 10**9
"""Most memory of the two float32 matrices together; larger ones are built in blocks of views for every product."""
BLOCK_BYTES = 256 * 10**6
KEPT_SHARE = 0.5
"""Of the memory of a device: what the matrices of all geometries together may take. Beyond it the ones that were used
longest ago are let go of, and built again when they are needed: data sets with many pixel sizes have one for each."""
LEFT_FOR_TRANSPOSE = 256 * 10**6
"""Largest matrix in bytes that is left for the building of its transpose. A larger one is built again: simulation on a
fine grid never needs the transpose."""

_NUMPY: dict[torch.dtype, type[np.floating]] = {torch.float32: np.float32, torch.float64: np.float64}


class MatrixPair:
    """The system matrix and its transpose for one geometry, built on first use for each type and device."""

    def __init__(self, geometry: Geometry, kernel: Kernel = "joseph") -> None:
        self.geometry = geometry
        self._build = strip_matrix if kernel == "strip" else joseph_matrix
        self._csr: dict[torch.dtype, CSR] = {}
        self._stored: dict[tuple[torch.dtype, torch.device, bool], StoredMatrix] = {}
        self._building = threading.Lock()
        self.used = 0
        """When it was last used: a count over all pairs."""

    def csr(self, dtype: torch.dtype) -> CSR:
        """The system matrix as NumPy arrays."""
        if dtype not in self._csr:
            self._csr[dtype] = self._build(self.geometry, _NUMPY[dtype])
        return self._csr[dtype]

    def get(self, dtype: torch.dtype, device: torch.device, *, transpose: bool) -> StoredMatrix:
        """The matrix (or its transpose, stored apart) for products on a device."""
        key = (dtype, device, transpose)
        found = self._stored.get(key)
        if found is not None:
            return found
        with self._building:  # threads that want the same matrix wait for the one that builds it
            found = self._stored.get(key)
            if found is None:
                csr = self.csr(dtype)
                found = stored_matrix(csr.transposed() if transpose else csr, device)
                with _LOCK:  # threads may prepare the matrices of several scans
                    self._stored[key] = found
                    both = (dtype, device, not transpose) in self._stored
                    if isinstance(found, PackedRows) and (both or csr.nbytes > LEFT_FOR_TRANSPOSE):
                        self._csr.pop(dtype, None)  # packed rows share no memory with it
                    make_room(self, device)
        return found

    def stored_bytes(self, device: torch.device) -> int:
        """Memory that the matrices take on a device; on the CPU a tensor shares that of its arrays."""
        host = device.type == "cpu"
        stored = sum(csr.nbytes for csr in self._csr.values()) if host else 0
        for (_, place, transpose), matrix in self._stored.items():
            if place == device and (transpose or not host or isinstance(matrix, PackedRows)):
                stored += bytes_kept(matrix)
        return stored

    def release(self) -> None:
        """Let go of the matrices; they are built again when they are needed."""
        self._csr.clear()
        self._stored.clear()

    def product(self, x: Tensor, *, transpose: bool) -> Tensor:
        """The matrix (or its transpose) times every row of ``x``."""
        self.used = next(_USES)
        return batch_last_product(self.get(x.dtype, x.device, transpose=transpose), x)


_PAIRS: weakref.WeakValueDictionary[tuple[Geometry, Kernel], MatrixPair] = weakref.WeakValueDictionary()
_USES = itertools.count(1)
_LOCK = threading.Lock()


def make_room(wanted: MatrixPair, device: torch.device) -> None:
    """Release the pairs that were used longest ago while all together take more than :data:`KEPT_SHARE`."""
    cuda = device.type == "cuda"
    total = torch.cuda.get_device_properties(device).total_memory if cuda else psutil.virtual_memory().total
    pairs = sorted(list(_PAIRS.values()), key=lambda pair: pair.used)
    excess = sum(pair.stored_bytes(device) for pair in pairs) - KEPT_SHARE * total
    for pair in pairs:
        if excess <= 0:
            return
        if pair is not wanted:
            excess -= pair.stored_bytes(device)
            pair.release()


def matrix_pair(geometry: Geometry, kernel: Kernel = "joseph") -> MatrixPair:
    """The matrices of a geometry, shared by all operators of equal geometry for as long as one of them lives."""
    pair = _PAIRS.get((geometry, kernel))
    if pair is None:
        pair = _PAIRS[geometry, kernel] = MatrixPair(geometry, kernel)
    return pair


class MatrixBackend(Backend):
    """Joseph's interpolation, or strip areas, as a sparse matrix; exact adjoint, CPU and CUDA, float32 and float64."""

    name = "matrix"

    def __init__(self, geometry: Geometry, kernel: Kernel = "joseph") -> None:
        self.geometry = geometry
        self.kernel: Kernel = kernel
        self._bytes = 16 * (strip_nonzeros(geometry) if kernel == "strip" else joseph_nonzeros(geometry))
        self._pair = matrix_pair(geometry, kernel)

    def __getstate__(self) -> dict[str, Any]:
        return {"geometry": self.geometry, "kernel": self.kernel}  # the matrices are cheaper to rebuild than to send

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["geometry"], state["kernel"])  # type: ignore[misc]

    def _blocks(self, x: Tensor) -> list[tuple[slice, Geometry]]:
        """The views, at once or in blocks, each with its own geometry."""
        views = self.geometry.sinogram_shape[0]
        if self._bytes <= max(STORED_BYTES, gpu_budget(x.device)):
            return [(slice(0, views), self.geometry)]
        size = max(1, views * BLOCK_BYTES // self._bytes)
        parts = [slice(first, min(first + size, views)) for first in range(0, views, size)]
        return [(part, self.geometry.select_views(part)) for part in parts]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, *image_shape)`` to ``(N, *sinogram_shape)``."""
        blocks = self._blocks(x)
        if len(blocks) == 1:
            y = self._pair.product(x.flatten(1), transpose=False)
        else:
            parts = [
                batch_last_product(MatrixPair(g, self.kernel).get(x.dtype, x.device, transpose=False), x.flatten(1))
                for _, g in blocks
            ]
            y = torch.cat(parts, 1)
        return y.reshape(len(x), *self.geometry.sinogram_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map ``(N, *sinogram_shape)`` to ``(N, *image_shape)``."""
        blocks = self._blocks(y)
        if len(blocks) == 1:
            x = self._pair.product(y.flatten(1), transpose=True)
        else:
            x = y.new_zeros((len(y), math.prod(self.geometry.image_shape)))
            for views, geometry in blocks:
                matrix = MatrixPair(geometry, self.kernel).get(y.dtype, y.device, transpose=True)
                x = x + batch_last_product(matrix, y[:, views].flatten(1))
        return x.reshape(len(y), *self.geometry.image_shape)


def gpu_budget(device: torch.device) -> int:
    """Bytes that the matrices may take on a GPU: a quarter of its memory; 0 for a CPU."""
    if device.type != "cuda":
        return 0
    return torch.cuda.get_device_properties(device).total_memory // 4
