"""Builders of the system matrix: CSR with int32 indices, and its transpose as a CSR matrix of its own."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.rays import joseph_rays

_RAYS_A_CHUNK = 8192  # keeps the temporaries of the builder within a few ten MB


class CSR(NamedTuple):
    """A sparse matrix in compressed rows: ``data``, ``indices`` (int32), ``indptr`` (int32) and its shape."""

    data: NDArray[np.floating]
    indices: NDArray[np.int32]
    indptr: NDArray[np.int32]
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Memory of the three arrays."""
        return self.data.nbytes + self.indices.nbytes + self.indptr.nbytes

    def transposed(self) -> CSR:
        """The transpose, again in compressed rows."""
        flipped = csr_array((self.data, self.indices, self.indptr), shape=self.shape).T.tocsr()
        indices, indptr = flipped.indices.astype(np.int32, copy=False), flipped.indptr.astype(np.int32, copy=False)
        return CSR(flipped.data, indices, indptr, (self.shape[1], self.shape[0]))

    def to_torch(self, device: torch.device | None = None) -> Tensor:
        """As a torch CSR tensor; on the CPU it shares memory with the arrays."""
        rows, columns, values = (torch.from_numpy(a) for a in (self.indptr, self.indices, self.data))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
            matrix = torch.sparse_csr_tensor(rows, columns, values, size=self.shape, check_invariants=False)
        return matrix if device is None else matrix.to(device)


def joseph_nonzeros(geometry: PlanarGeometry) -> int:
    """Upper bound of the non-zeros of :func:`joseph_matrix`, without building it: 2 for each ray and major step."""
    views, detectors = geometry.sinogram_shape
    return 2 * views * detectors * max(geometry.image_shape)


def joseph_matrix(geometry: PlanarGeometry, dtype: type[np.floating] = np.float32) -> CSR:
    """Lengths of the rays in the pixels, by linear interpolation along the minor axis (Joseph 1982).

    Args:
        geometry: the scan.
        dtype: ``numpy.float32`` or ``numpy.float64``; the weights are computed in float64.

    Returns:
        ``(views * detectors, rows * columns)``; the entries are in mm.

    Raises:
        ValueError: more non-zeros than int32 can count.
    """
    rays = joseph_rays(geometry.rays(), geometry.image_shape, geometry.pixel_rc)
    height, width = geometry.image_shape
    number = rays.start.size
    blocks: list[tuple[NDArray[np.floating], NDArray[np.int32]]] = []
    lengths = np.zeros(number, np.int64)
    chunk = max(1, _RAYS_A_CHUNK * 256 // max(height, width))
    for first in range(0, number, chunk):
        part = slice(first, min(first + chunk, number))
        by_column = rays.by_column[part]
        # Split the chunk by major axis so that each part has one loop length; then put the rows back in ray order.
        data = np.zeros((by_column.size, 2 * max(height, width)), dtype)
        index = np.full(data.shape, -1, np.int32)
        for column_major, steps, across in ((False, height, width), (True, width, height)):
            chosen = np.flatnonzero(by_column == column_major)
            if not chosen.size:
                continue
            k = np.arange(steps)
            position = rays.start[part][chosen, None] + rays.slope[part][chosen, None] * k
            low = np.floor(position)
            fraction = position - low
            # Clipping keeps far-away positions inside int32 without making them valid.
            cell = np.clip(low, -2, across).astype(np.int32)
            weight = rays.weight[part][chosen, None]
            stride, step = (width, 1) if column_major else (1, width)
            base = cell * np.int32(stride) + (k * step).astype(np.int32)
            for side, share in ((0, weight * (1 - fraction)), (1, weight * fraction)):
                inside = (cell + side >= 0) & (cell + side < across) & (share != 0)
                slots = np.arange(side, 2 * steps, 2)
                data[chosen[:, None], slots] = share
                index[chosen[:, None], slots] = np.where(inside, base + np.int32(side * stride), -1)
        keep = index >= 0
        lengths[part] = keep.sum(1)
        blocks.append((data[keep], index[keep]))
    total = int(lengths.sum())
    if total > np.iinfo(np.int32).max:
        raise ValueError(f"the system matrix would have {total} non-zeros, more than int32 indices can address")
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    data = np.concatenate([b[0] for b in blocks])
    indices = np.concatenate([b[1] for b in blocks])
    return CSR(data, indices, indptr, (number, height * width))
