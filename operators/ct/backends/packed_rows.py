"""A sparse matrix in the form that its compiled product reads fastest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.operators.ct.system_matrix import CSR

_SHORT = np.iinfo(np.uint16).max + 1
"""Matrices of at most this many columns have their numbers stored in 16 bits."""


class PackedRows(NamedTuple):
    """Compressed rows, each padded with entries of value zero to a multiple of eight entries.

    ``columns`` are uint16 where that is enough, else of the type of the matrix; ``ends`` are int64.
    """

    values: NDArray[np.floating]
    columns: NDArray[np.integer]
    ends: NDArray[np.int64]
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Memory of the three arrays."""
        return self.values.nbytes + self.columns.nbytes + self.ends.nbytes


StoredMatrix = Tensor | PackedRows
"""A CSR tensor, or packed rows for the compiled product."""


@functools.cache
def compiled_kernels() -> tuple[Callable[..., None], Callable[..., None], int] | None:
    """The product, the kernel that fills padded rows, and what their lengths are a multiple of; None without Numba."""
    try:
        from deft_ct.operators.ct.backends._csr_kernels import GROUP, csr_product, fill_rows
    except ImportError:
        return None
    return csr_product, fill_rows, GROUP


def stored_matrix(csr: CSR, device: torch.device) -> StoredMatrix:
    """The form of a matrix in which it is kept for many products on a device."""
    if device.type != "cpu" or compiled_kernels() is None:
        return csr.to_torch(device)
    return packed_rows(csr.data, csr.indices, csr.indptr, csr.shape)


def bytes_kept(matrix: StoredMatrix) -> int:
    """Memory of a stored matrix."""
    if isinstance(matrix, PackedRows):
        return matrix.nbytes
    parts = matrix.values(), matrix.col_indices(), matrix.crow_indices()
    return sum(part.nbytes for part in parts)


def packed_rows(
    values: NDArray[np.floating], columns: NDArray[np.integer], ends: NDArray[np.integer], shape: tuple[int, ...]
) -> PackedRows:
    """Pack compressed rows. Needs Numba."""
    kernels = compiled_kernels()
    assert kernels is not None
    _, fill_rows, group = kernels
    lengths = -(-np.diff(ends.astype(np.int64)) // group) * group
    padded_ends = np.concatenate([[0], np.cumsum(lengths)])
    kind: Any = np.uint16 if shape[1] <= _SHORT else columns.dtype
    found = PackedRows(
        np.empty(padded_ends[-1], values.dtype), np.empty(padded_ends[-1], kind), padded_ends, (shape[0], shape[1])
    )
    fill_rows(values, columns, ends, padded_ends, found.values, found.columns)
    return found
