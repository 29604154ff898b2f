"""The product with one vector, where a kernel of our own gives the same bits faster than torch.

A sparse product with a single column is bound by the loads of the matrix, and torch's (MKL's) takes a path made for
many columns. Its matrix-vector product is fast, but sums in another order than a batch does, and one image must give
the same bits alone and in a batch. The Numba kernel sums in the order of the batch; because MKL picks its code by the
processor, that is tried once for each matrix, and torch's product stays where a single bit differs.
"""

from __future__ import annotations

import importlib.util
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

_LOGGER = logging.getLogger(__name__)

LEAST_ENTRIES = 2**20
"""Below this many entries loading Numba does not pay."""


class SingleProduct:
    """``matrix @ x`` for one vector, with the bits of ``matrix @ x[:, None]``.

    Args:
        matrix: a torch CSR matrix on the CPU, with int32 indices.

    Attributes:
        compiled: whether the compiled kernel is in use.
    """

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix
        self.compiled = False
        if matrix.values().numel() < LEAST_ENTRIES or importlib.util.find_spec("numba") is None:
            return
        self._ends = matrix.crow_indices().numpy().view(np.uint32)
        self._columns = matrix.col_indices().numpy().view(np.uint32)
        self._values = matrix.values().numpy()
        probe = torch.rand(matrix.shape[1], dtype=matrix.dtype, generator=torch.Generator().manual_seed(0)) - 0.5
        try:
            product = self._multiply(probe)
        except (ImportError, OSError, RuntimeError) as error:  # a Numba that does not fit NumPy, no folder to cache in
            _LOGGER.info("one image at a time: Numba does not work here (%s); torch's product is kept", error)
            return
        self.compiled = torch.equal(product, self._reference(probe))
        if not self.compiled:
            _LOGGER.info("one image at a time: this processor's sparse product sums in another order; kept")

    def __call__(self, x: Tensor) -> Tensor:
        """``(columns,)`` to ``(rows,)``."""
        return self._multiply(x) if self.compiled else self._reference(x)

    def _reference(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return (self._matrix @ x[:, None]).squeeze(1)

    def _multiply(self, x: Tensor) -> Tensor:
        from deft_ct.operators.ct.backends._row_kernel import multiply_rows

        vector = x.detach().contiguous().numpy()
        out = np.empty(self._matrix.shape[0], vector.dtype)
        workers = torch.get_num_threads()
        # Parts of as many entries each; the kernel releases the GIL and every part writes to rows of its own.
        marks = np.linspace(0, self._values.size, workers + 1)[1:-1]
        cuts = [0, *np.searchsorted(self._ends, marks).tolist(), out.size]

        def part(n: int) -> None:
            multiply_rows(
                self._ends, self._columns, self._values, vector, vector.dtype.type(0), cuts[n], cuts[n + 1], out
            )

        if workers == 1:
            part(0)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(part, range(workers)))
        return torch.from_numpy(out)
