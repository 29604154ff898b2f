"""A sparse matrix times every row of a batch, with the same bits for an image alone and in any batch.

Libraries pick their code for a sparse product by the number of columns and by the processor, and that code sets the
order of the sums. Intel's MKL, for one, sums in another order when the number of columns is a multiple of four. So a
product of our own is taken where Numba is installed. Elsewhere the columns are always padded to one of a few widths
that are known to give equal bits here.
"""

from __future__ import annotations

import functools
import itertools
import warnings

import torch
from torch import Tensor

from deft_ct.operators.ct.backends.packed_rows import PackedRows, StoredMatrix, compiled_kernels, packed_rows
from deft_ct.operators.threads import run_tasks

CHUNK = 16
"""Most columns of one sparse product: wider ones fall out of the cache (measured: 8 to 16 is best)."""
_NARROWER = (4, 8)
"""Other widths, for fewer images. A product of four columns takes less time than one of a single column."""


_LANES = (1, 4, 8, CHUNK)
_TASKS = 4  # for each thread, so that one that another program holds up leaves its rows to the others
_SMALL = 2**20  # entries of a matrix that one thread is done with before a second one has begun


def batch_last_product(matrix: StoredMatrix, x: Tensor) -> Tensor:
    """``matrix @ x`` for every row of ``x``: ``(N, columns) -> (N, rows)``, with the batch as the last axis inside.

    On the CPU a batch gives the same bits as its images one by one. Compiled by Numba where that is installed; its bits
    are not those of PyTorch's product. A CSR tensor is then packed for each call: keep a
    :func:`~deft_ct.operators.ct.backends.packed_rows.stored_matrix` for several calls.
    """
    if not len(x):
        return x.new_empty((0, matrix.shape[0]))
    if isinstance(matrix, PackedRows):
        return _compiled_product(matrix, x.detach())
    if x.device.type != "cpu":
        with torch.autocast(x.device.type, enabled=False):  # mixed precision is for networks, not for line integrals
            return _product(matrix, x, ()).contiguous()
    if compiled_kernels() is None:
        return _torch_product(matrix, x)
    values, columns, ends = (part.numpy() for part in (matrix.values(), matrix.col_indices(), matrix.crow_indices()))
    return _compiled_product(packed_rows(values, columns, ends, matrix.shape), x.detach())


def _compiled_product(matrix: PackedRows, x: Tensor) -> Tensor:
    kernels = compiled_kernels()
    assert kernels is not None  # it has made the rows
    parts = matrix.values, matrix.columns, matrix.ends
    rows, blocks = matrix.shape[0], x.split(CHUNK)
    lanes = [next(width for width in _LANES if width >= len(block)) for block in blocks]
    out = torch.empty((sum(lanes), rows), dtype=x.dtype)
    for block, width, target in zip(blocks, lanes, out.split(lanes), strict=True):
        full = block if width == len(block) else torch.nn.functional.pad(block, (0, 0, 0, width - len(block)))
        columns = full.t().contiguous().numpy()
        small = matrix.values.size < _SMALL
        pieces = 1 if small or torch.get_num_threads() == 1 else _TASKS * torch.get_num_threads()
        ends = [rows * n // pieces for n in range(pieces + 1)]
        run_tasks(kernels[0], [(*parts, columns, *part, target.numpy()) for part in itertools.pairwise(ends)])
    return out[: len(x)]


def _torch_product(matrix: Tensor, x: Tensor) -> Tensor:
    widths = _equal_widths(x.dtype, torch.get_num_threads())
    with torch.autocast("cpu", enabled=False):
        parts = [_product(matrix, block, widths) for block in x.split(CHUNK)]
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
