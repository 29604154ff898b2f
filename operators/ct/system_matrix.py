"""Builders of the system matrix: CSR with int32 indices, and its transpose as a separate CSR matrix."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from deft_ct.operators.ct.cone import ConeGeometry
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.rays import joseph_rays, joseph_rays_3d
from deft_ct.operators.ct.scan import VolumeRays
from deft_ct.operators.ct.vector_geometry import VectorConeGeometry, VectorFanGeometry

Geometry = PlanarGeometry | ConeGeometry | VectorFanGeometry | VectorConeGeometry

_ENTRIES_A_CHUNK = 2**18  # keeps the temporaries of the builder in the cache


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


def joseph_nonzeros(geometry: Geometry) -> int:
    """Upper bound of the stored entries of :func:`joseph_matrix`: 2 (in 3D 4) for each ray and major step."""
    entries = 4 if isinstance(geometry, VolumeRays) else 2
    return entries * math.prod(geometry.sinogram_shape) * max(geometry.image_shape)


def joseph_matrix(geometry: Geometry, dtype: type[np.floating] = np.float32) -> CSR:
    """Lengths of the rays in the pixels, by linear interpolation across the major axis (Joseph 1982).

    Args:
        geometry: the scan; in 3D the interpolation is bilinear.
        dtype: ``numpy.float32`` or ``numpy.float64``; the weights are computed in float64.

    Returns:
        One row for each ray, one column for each pixel; the entries are in mm.

    Raises:
        ValueError: more non-zeros than int32 can count.
    """
    return _cone_matrix(geometry, dtype) if isinstance(geometry, VolumeRays) else _planar_matrix(geometry, dtype)


def _row_ends(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"the system matrix would have {ends[-1]} entries, more than int32 indices can address")
    return ends


def _planar_matrix(geometry: PlanarGeometry | VectorFanGeometry, dtype: type[np.floating]) -> CSR:
    rays = joseph_rays(geometry.rays(), geometry.image_shape, geometry.pixel_rc)
    height, width = geometry.image_shape
    number = rays.start.size
    ends = _row_ends(2 * (rays.last - rays.first))
    total = int(ends[-1])
    data, indices = np.empty(total, dtype), np.empty(total, np.int32)
    cells = np.where(rays.by_column, height, width).astype(np.int32)
    line_step = np.where(rays.by_column, 1, width).astype(np.int32)
    cell_step = np.where(rays.by_column, width, 1).astype(np.int32)
    # Two entries for each line that a ray crosses; those beside the image keep a zero in a valid place.
    chunks = np.searchsorted(ends, np.arange(0, total, _ENTRIES_A_CHUNK))
    for low, high in itertools.pairwise([*np.unique(chunks), number]):
        part = slice(low, high)
        first, lengths = rays.first[part], (rays.last - rays.first)[part]
        ray = np.repeat(np.arange(low, high, dtype=np.int32), lengths)
        k = np.arange(ray.size) - np.repeat((ends[low:high] - ends[low]) // 2 - first, lengths)
        position = rays.start[ray] + rays.slope[ray] * k
        line, limit = k.astype(np.int32) * line_step[ray], cells[ray] - 1
        # A ray along the border may round to a cell beside the image; it then weighs nothing there.
        floor = np.clip(np.floor(position), -1, limit)
        fraction = np.clip(position - floor, 0, 1)
        cell = floor.astype(np.int32)
        weight, step = rays.weight[ray], cell_step[ray]
        out = slice(int(ends[low]), int(ends[high]))
        data[out][0::2] = weight * (1 - fraction) * (cell >= 0)
        data[out][1::2] = weight * fraction * (cell < limit)
        indices[out][0::2] = line + step * np.maximum(cell, 0)
        indices[out][1::2] = line + step * np.minimum(cell + 1, limit)
    return CSR(data, indices, ends.astype(np.int32), (number, height * width))


def _cone_matrix(geometry: VolumeRays, dtype: type[np.floating]) -> CSR:
    rays = joseph_rays_3d(geometry.rays(), geometry.image_shape, geometry.voxel_zyx)
    shape = np.array(geometry.image_shape)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    lengths = rays.last - rays.first
    ends = _row_ends(4 * lengths)
    data, indices = np.empty(int(ends[-1]), dtype), np.empty(int(ends[-1]), np.int32)
    chunks = np.searchsorted(ends, np.arange(0, int(ends[-1]), _ENTRIES_A_CHUNK))
    for low, high in itertools.pairwise([*np.unique(chunks), lengths.size]):
        ray = np.repeat(np.arange(low, high), lengths[low:high])
        k = np.arange(ray.size) - np.repeat((ends[low:high] - ends[low]) // 4 - rays.first[low:high], lengths[low:high])
        out = slice(int(ends[low]), int(ends[high]))
        line = k * strides[rays.axes[ray, 0]]
        sides = []
        for minor in range(2):
            axis = rays.axes[ray, 1 + minor]
            position = rays.start[ray, minor] + rays.slope[ray, minor] * k
            limit = shape[axis] - 1
            floor = np.clip(np.floor(position), -1, limit)
            fraction = np.clip(position - floor, 0, 1)
            cell = floor.astype(np.int64)
            near = ((1 - fraction) * (cell >= 0), strides[axis] * np.maximum(cell, 0))
            far = (fraction * (cell < limit), strides[axis] * np.minimum(cell + 1, limit))
            sides.append((near, far))
        for slot, ((share_p, at_p), (share_q, at_q)) in enumerate(itertools.product(*sides)):
            data[out][slot::4] = rays.weight[ray] * share_p * share_q
            indices[out][slot::4] = line + at_p + at_q
    return CSR(data, indices, ends.astype(np.int32), (lengths.size, int(shape.prod())))
