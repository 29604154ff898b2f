"""Filtered back-projection for every two-dimensional geometry, as one linear operator."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct.backends.batch_product import batch_last_product
from deft_ct.operators.ct.backends.matrix import gpu_budget
from deft_ct.operators.ct.backends.packed_rows import StoredMatrix, bytes_kept, stored_matrix
from deft_ct.operators.ct.filters import apply_filter, check_filter, ramp_response
from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry, PlanarGeometry
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.redundancy import one_sided_padding, ray_weights
from deft_ct.operators.ct.system_matrix import CSR
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.threads import run_tasks

_CACHED_BYTES = 512 * 2**20
_BLOCK_BYTES = 128 * 2**20
STORED_BYTES = 2 * 10**9
"""Memory of all matrices that are kept, shared by the filters of a geometry; the least recently used go first."""


def fbp(y: Tensor, geometry: PlanarGeometry, filter: str = "ram-lak", cutoff: float = 1.0) -> Tensor:
    """Filtered back-projection of line integrals.

    For parallel beams, and for fan beams with a flat or curved detector. The angles may be any, in any order, over
    full, short and limited arcs. Detector and axis may have offsets. The method is that of Kak and Slaney 1988, ch. 3;
    for the weights see :mod:`deft_ct.operators.ct.redundancy`. Linear, differentiable and batched; nothing is clipped.

    Args:
        y: ``(..., views, detectors)``, dimensionless line integrals.
        geometry: the scan.
        filter: ``"ram-lak"``, ``"shepp-logan"``, ``"cosine"``, ``"hamming"`` or ``"hann"``.
        cutoff: where the filter ends, as a fraction of the Nyquist frequency, in (0, 1].

    Returns:
        ``(..., rows, columns)`` attenuation in 1/mm.

    Raises:
        ValueError: an unknown filter, a bad cut-off or shape.
        TypeError: ``y`` is not a floating-point tensor.
    """
    check_filter(filter, cutoff)
    if not isinstance(geometry, PlanarGeometry):
        raise TypeError(f"fbp needs a parallel or fan geometry, got {type(geometry).__name__}; cone beams use fdk")
    image: Tensor = _operator(geometry, filter, float(cutoff))(y)
    return image


@functools.lru_cache(maxsize=128)
def _operator(geometry: PlanarGeometry, filter: str, cutoff: float) -> FilteredBackprojection:
    return FilteredBackprojection(geometry, filter, cutoff)


class FilteredBackprojection(LinearOperator):
    """:func:`fbp` as an operator from sinograms to images, with its exact adjoint."""

    def __init__(self, geometry: PlanarGeometry, filter: str = "ram-lak", cutoff: float = 1.0) -> None:
        super().__init__(geometry.sinogram_shape, geometry.image_shape)
        check_filter(filter, cutoff)
        self.geometry = geometry
        # Filtered rows reach beyond a detector that is cut off on one side: give them room there.
        self._pad = one_sided_padding(geometry)
        self._padded = geometry.replace(
            detectors=geometry.detectors + sum(self._pad),
            detector_offset_mm=geometry.detector_offset_mm + 0.5 * (self._pad[1] - self._pad[0]) * geometry.detector_mm,
        )
        weights = ray_weights(geometry)
        spacing, equiangular = geometry.detector_mm, False
        if isinstance(geometry, FanGeometry):
            rays = geometry.rays()
            # Distance from the source to the foot of the rotation axis on each ray.
            reach = -(rays.origin * rays.direction).sum(-1)
            equiangular = geometry.detector == "curved"
            weights = weights * (reach if equiangular else reach / geometry.source_to_detector_mm)
            spacing = spacing / geometry.source_to_detector_mm if equiangular else spacing
        self._weights = torch.from_numpy(weights)
        response = ramp_response(self._padded.detectors, spacing, filter, cutoff, equiangular=equiangular)
        self._response = torch.from_numpy(response)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        weighted = torch.nn.functional.pad(x * self._weights.to(x), self._pad)
        return self._backproject(apply_filter(weighted, self._response.to(x)))

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        rows = apply_filter(self._project(y), self._response.to(y))
        return rows[..., self._pad[0] : self._pad[0] + self.geometry.detectors] * self._weights.to(y)

    def _backproject(self, q: Tensor) -> Tensor:
        found = self._without_matrix(q)
        if found is not None:
            return found
        out = torch.zeros(len(q), math.prod(self.range_shape), dtype=q.dtype, device=q.device)
        for views in self._blocks(q.device):
            block = q[:, views].flatten(1)
            out = out + batch_last_product(self._matrix(views, q, transpose=False), block)
        return out.reshape(len(q), *self.range_shape)

    def _without_matrix(self, q: Tensor) -> Tensor | None:
        """By a kernel of Numba, where the matrix would be built anew for every call; None where there is no Numba."""
        views, detectors = self._padded.sinogram_shape
        if self._keeps_matrix(q.device) or q.device.type != "cpu" or detectors < 2:
            return None
        if importlib.util.find_spec("numba") is None:
            return None
        from deft_ct.operators.ct.backends import _fbp_kernels

        scan = self._padded
        distances, kind = (0.0, 0.0), 0
        if isinstance(scan, FanGeometry):
            distances = (scan.source_to_center_mm, scan.source_to_detector_mm)
            kind = 1 if scan.detector == "flat" else 2
        lengths = np.array(
            [*scan.pixel_rc, scan.detector_mm, scan.detector_offset_mm, scan.axis_offset_mm, *distances]
        )  # fmt: skip
        turns = np.stack([np.cos(scan.angle_array), np.sin(scan.angle_array)])
        rows = q.detach().reshape(-1, views, detectors).contiguous().numpy()
        height, width = self.range_shape
        out = np.empty((len(rows), height, width), rows.dtype)
        cuts = [height * n // torch.get_num_threads() for n in range(torch.get_num_threads() + 1)]
        common = (rows, turns, lengths, kind, out)
        run_tasks(_fbp_kernels.backproject_lines, [(*common, a, b) for a, b in itertools.pairwise(cuts)])
        return torch.from_numpy(out)

    def _project(self, image: Tensor) -> Tensor:
        flat = image.flatten(1)
        parts = [
            batch_last_product(self._matrix(views, image, transpose=True), flat) for views in self._blocks(image.device)
        ]
        return torch.cat(parts, 1).reshape(len(image), *self._padded.sinogram_shape)

    def _blocks(self, device: torch.device) -> list[slice]:
        """All views at once where the matrix may be kept, else blocks whose matrix would be built and dropped."""
        views = self.domain_shape[0]
        size = views if self._keeps_matrix(device) else max(1, _BLOCK_BYTES // self._view_bytes)
        return [slice(first, min(first + size, views)) for first in range(0, views, size)]

    def _keeps_matrix(self, device: torch.device) -> bool:
        return self.domain_shape[0] * self._view_bytes <= max(_CACHED_BYTES, gpu_budget(device))

    @property
    def _view_bytes(self) -> int:
        """Memory of the matrix of one view, at most."""
        return 2 * 12 * math.prod(self.range_shape)

    def _matrix(self, views: slice, like: Tensor, *, transpose: bool) -> StoredMatrix:
        def build() -> StoredMatrix:
            dtype = np.float64 if like.dtype == torch.float64 else np.float32
            csr = backprojection_matrix(self._padded, views, dtype)
            return stored_matrix(csr.transposed() if transpose else csr, like.device)

        if views != slice(0, self.domain_shape[0]):
            return build()
        key = (self._padded, like.dtype, like.device, transpose)
        return _STORE.get(key, build, limit=max(STORED_BYTES, gpu_budget(like.device)))


class MatrixStore:
    """Sparse matrices up to a total size; the last one is kept in any case."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, StoredMatrix] = OrderedDict()
        self._lock = threading.Lock()
        self._building = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, build: Callable[[], StoredMatrix], *, limit: int) -> StoredMatrix:
        """The matrix of a key, built if it is not there; then the ones used longest ago go, down to ``limit`` bytes."""
        found = self._found(key)
        if found is not None:
            return found
        with self._building:  # threads that want the same matrix wait for the one that builds it
            found = self._found(key)
            if found is None:
                found = build()
                with self._lock:
                    self._kept[key] = found
                    while len(self._kept) > 1 and sum(map(bytes_kept, self._kept.values())) > limit:
                        self._kept.popitem(last=False)
        return found

    def _found(self, key: Hashable) -> StoredMatrix | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)


_STORE = MatrixStore()


def backprojection_matrix(geometry: PlanarGeometry, views: slice, dtype: type[np.floating]) -> CSR:
    """Pixel-driven back-projection of some views: linear interpolation on the detector, times the distance weight.

    Args:
        geometry: the scan.
        views: which views.
        dtype: ``numpy.float32`` or ``numpy.float64``.

    Returns:
        ``(rows * columns, views * detectors)``.
    """
    angles = geometry.angle_array[views]
    (height, width), (pitch_y, pitch_x) = geometry.image_shape, geometry.pixel_rc
    x: Array = (np.arange(width, dtype=np.float64)[None, :, None] - (width - 1) / 2) * pitch_x
    y: Array = ((height - 1) / 2 - np.arange(height, dtype=np.float64)[:, None, None]) * pitch_y
    detectors, offset = geometry.detectors, np.arange(len(angles), dtype=np.int32) * np.int32(geometry.detectors)
    # Room for two entries of every pixel and view; what stays unused at the end never gets memory.
    most = 2 * height * width * len(angles)
    data, indices, lengths, used = np.empty(most, dtype), np.empty(most, np.int32), [], 0
    rows = max(1, 2**21 // (width * len(angles)))
    for first in range(0, height, rows):
        position, weight = detector_coordinate(geometry, angles, x, y[first : first + rows])
        low = np.floor(position)
        fraction = position - low
        cell = np.clip(low, -2, detectors).astype(np.int32)
        share = np.stack([(1 - fraction) * weight, fraction * weight], -1).astype(dtype)
        cells = np.stack([cell, cell + 1], -1)
        keep = (cells >= 0) & (cells < detectors)
        lengths.append(keep.sum((-1, -2)).ravel())
        filled = slice(used, used + int(lengths[-1].sum()))
        data[filled], indices[filled], used = share[keep], (cells + offset[:, None])[keep], filled.stop
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32)
    shape = (height * width, len(angles) * detectors)
    return CSR(data[:used], indices[:used], indptr, shape)


def detector_coordinate(geometry: PlanarGeometry, angles: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Detector index on which each point falls in each view, and its back-projection weight.

    Args:
        geometry: the scan.
        angles: of the views, in radians.
        x: positions along the rows of the image in mm, broadcastable with ``angles``.
        y: positions along its columns, upwards.

    Raises:
        TypeError: the geometry is neither of parallel nor of fan beams.
    """
    cos, sin = np.cos(angles), np.sin(angles)
    lateral = x * cos + y * sin + geometry.axis_offset_mm
    if isinstance(geometry, ParallelGeometry):
        u, weight = lateral, np.ones_like(lateral)
    elif isinstance(geometry, FanGeometry):
        depth = geometry.source_to_center_mm - x * sin + y * cos
        if geometry.detector == "flat":
            u = geometry.source_to_detector_mm * lateral / depth
            weight = (geometry.source_to_detector_mm / depth) ** 2
        else:
            u = geometry.source_to_detector_mm * np.arctan2(lateral, depth)
            weight = 1 / (lateral**2 + depth**2)
    else:
        raise TypeError(f"filtered back-projection knows parallel and fan geometries, got {type(geometry).__name__}")
    index = (u - geometry.detector_offset_mm) / geometry.detector_mm + (geometry.detectors - 1) / 2
    return index, weight
