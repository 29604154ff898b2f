"""A sparse matrix times every row of a batch, with the same bits for an image alone and in any batch.

Libraries pick their code for a sparse product by the number of columns and by the processor, and that code sets the
order of the sums. Intel's MKL, for one, sums in another order when the number of columns is a multiple of four. So the
columns are always padded to one of a few widths that are known to give equal bits here.
"""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

CHUNK = 16
"""Most columns of one sparse product: wider ones fall out of the cache (measured: 8 to 16 is best)."""
_NARROWER = (4, 8)
"""Other widths, for fewer images. A product of four columns takes less time than one of a single column."""


def batch_last_product(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix @ x`` for every row of ``x``: ``(N, columns) -> (N, rows)``, with the batch as the last axis inside.

    On the CPU a batch gives the same bits as its images one by one.
    """
    if not len(x):
        return x.new_empty((0, matrix.shape[0]))
    cpu = x.device.type == "cpu"
    widths = _equal_widths(x.dtype, torch.get_num_threads()) if cpu else ()
    with torch.autocast(x.device.type, enabled=False):  # mixed precision is for networks, not for line integrals
        parts = [_product(matrix, block, widths) for block in x.split(CHUNK if cpu else len(x))]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).contiguous()


def _product(matrix: Tensor, x: Tensor, widths: tuple[int, ...]) -> Tensor:
    count = len(x)
    width = next((width for width in widths if width >= count), count)
    columns = x.t().contiguous() if width == count else torch.nn.functional.pad(x.t(), (0, width - count))
    return (matrix @ columns).t()[:count]


@functools.cache
def _equal_widths(dtype: torch.dtype, threads: int) -> tuple[int, ...]:
    """The widths that give the bits of :data:`CHUNK` columns on this processor, increasing, :data:`CHUNK` the last.

    They are tried on rows of every length up to 256 (each length once, as the order of the sums depends on it).
    """
    del threads  # part of the key only: a library may divide the rows in another way
    generator = torch.Generator().manual_seed(0)
    columns = 512
    ends = torch.arange(257).cumsum(0).to(torch.int32)
    indices = torch.cat([torch.randperm(columns, generator=generator)[:n].sort().values for n in range(1, 257)])
    values = torch.rand(int(ends[-1]), generator=generator, dtype=dtype) - 0.5
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        matrix = torch.sparse_csr_tensor(
            ends, indices.to(torch.int32), values, size=(256, columns), check_invariants=False
        )
    x = torch.rand((CHUNK, columns), generator=generator, dtype=dtype) - 0.5
    with torch.inference_mode(False), torch.no_grad():
        whole = _product(matrix, x, (CHUNK,))
        same = [
            width for width in _NARROWER
            if all(torch.equal(_product(matrix, x[at : at + width], (width,)), whole[at : at + width])
                   for at in range(0, CHUNK, width))
        ]  # fmt: skip
    return (*same, CHUNK)
