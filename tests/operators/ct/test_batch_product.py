"""One image alone has the bits that it has in any batch, whatever order of sums the sparse library chooses."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.backends import batch_product, packed_rows
from deft_ct.operators.ct.backends.batch_product import CHUNK, batch_last_product
from deft_ct.operators.ct.backends.packed_rows import PackedRows, stored_matrix
from deft_ct.operators.ct.system_matrix import CSR, joseph_matrix
from deft_ct.testing import assert_batch_invariant

PARALLEL = ParallelGeometry.for_image((24, 20), 1.0, 11)
FAN = FanGeometry.for_image((24, 20), 1.0, 11, source_to_center_mm=60, source_to_detector_mm=100)


@pytest.fixture(params=["compiled", "of PyTorch"])
def product(request, monkeypatch):
    """Both ways to multiply: with Numba and without."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    else:
        without_numba(monkeypatch)
    return batch_last_product


def without_numba(monkeypatch):
    for module in (batch_product, packed_rows):
        monkeypatch.setattr(module, "compiled_kernels", lambda: None)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [2, 4, 7, 8, 15, 16, 19])
def test_batches_of_every_size_have_the_bits_of_their_members(geometry, dtype, batch):
    assert_batch_invariant(RayTransform(geometry, backend="matrix"), batch=batch, dtype=dtype)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_the_product_is_that_of_the_dense_matrix(product, dtype, rtol, index):
    """Rows of 0 to 40 entries, so that every rest of a division by the number of sums occurs, and an empty matrix."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand((41, 64), generator=generator, dtype=torch.float64)
    dense *= torch.arange(64) < torch.arange(41)[:, None]
    for exact in (dense, 0 * dense):
        sparse = exact.to(dtype).to_sparse_csr()
        matrix = torch.sparse_csr_tensor(
            sparse.crow_indices().to(index), sparse.col_indices().to(index), sparse.values(), sparse.shape,
            check_invariants=True,
        )  # fmt: skip
        x = torch.rand((21, 64), generator=generator, dtype=dtype)
        found = product(matrix, x)
        assert found.dtype == dtype and found.shape == (21, 41) and found.is_contiguous()
        torch.testing.assert_close(found.double(), x.double() @ exact.T, rtol=rtol, atol=10 * rtol)
        assert product(matrix, x[:0]).shape == (0, 41)


def test_threads_and_slices_of_a_batch_change_no_bit(threads, monkeypatch):
    pytest.importorskip("numba")
    matrix = joseph_matrix(FAN).to_torch()
    x = torch.rand((21, matrix.shape[1]), generator=torch.Generator().manual_seed(0))
    threads(1)
    alone = batch_last_product(matrix, x)
    monkeypatch.setattr(batch_product, "_SMALL", 0)
    tasks = []
    true = batch_product.run_tasks
    monkeypatch.setattr(
        batch_product, "run_tasks", lambda kernel, parts: tasks.append(len(parts)) or true(kernel, parts)
    )
    threads(3)
    assert torch.equal(batch_last_product(matrix, x), alone)
    assert tasks == [12, 12]
    # Images that lie apart in memory, as the slices of a volume may.
    apart = torch.rand((21, 2, matrix.shape[1]), generator=torch.Generator().manual_seed(1))
    apart[:, 1] = x
    assert torch.equal(batch_last_product(matrix, apart[:, 1]), alone)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize(("columns", "kind"), [(2**16, np.uint16), (2**16 + 1, np.int32)])
def test_column_numbers_take_16_bits_where_that_is_enough(columns, kind):
    pytest.importorskip("numba")
    ends, numbers = np.array([0, 1, 1, 4], np.int32), np.array([columns - 1, 0, 300, columns - 1], np.int32)
    csr = CSR(np.array([2.0, 3.0, 4.0, 5.0], np.float32), numbers, ends, (3, columns))
    matrix = stored_matrix(csr, torch.device("cpu"))
    assert isinstance(matrix, PackedRows) and matrix.columns.dtype == kind
    assert matrix.ends.tolist() == [0, 8, 8, 16]
    assert matrix.nbytes == 16 * (4 + np.dtype(kind).itemsize) + 4 * 8
    x = torch.zeros(5, columns)
    x[1, 0], x[1, 300], x[1, -1] = 1, 10, 100
    x[2, 7] = float("nan")  # no row sees it, the padding neither
    x[3, -1] = float("nan")
    expected = torch.tensor([[0, 0, 0], [200, 0, 543], [0, 0, 0], [math.nan, 0, math.nan], [0, 0, 0]])
    for part in (slice(0, 5), slice(1, 2), slice(2, 3), slice(2, 5)):  # of 8, 1, 1 and 4 lanes
        found = batch_last_product(matrix, x[part])
        torch.testing.assert_close(found, expected[part], equal_nan=True, rtol=0, atol=0)


def test_without_numba_pytorch_multiplies(monkeypatch):
    packed_rows.compiled_kernels.cache_clear()
    monkeypatch.setitem(sys.modules, "deft_ct.operators.ct.backends._csr_kernels", None)
    assert packed_rows.compiled_kernels() is None
    assert isinstance(stored_matrix(joseph_matrix(FAN), torch.device("cpu")), torch.Tensor)
    packed_rows.compiled_kernels.cache_clear()


def test_a_width_that_gives_other_bits_is_not_used(monkeypatch):
    def other_order(matrix, x, widths):
        columns = true(matrix, x, widths)
        return columns * (1 + 1e-6) if widths == (4,) else columns

    true = batch_product._product
    batch_product._equal_widths.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(batch_product, "_product", other_order)
        widths = batch_product._equal_widths(torch.float32, 1)
    batch_product._equal_widths.cache_clear()
    assert 4 not in widths and widths[-1] == CHUNK


def test_few_images_are_padded_to_a_width(monkeypatch):
    seen = []
    without_numba(monkeypatch)
    monkeypatch.setattr(batch_product, "_equal_widths", lambda dtype, threads: (8, CHUNK))
    true = torch.nn.functional.pad
    monkeypatch.setattr(torch.nn.functional, "pad", lambda x, p: seen.append(x.shape[1] + p[1]) or true(x, p))
    matrix = joseph_matrix(PARALLEL).to_torch()
    batch_last_product(matrix, torch.rand(3, matrix.shape[1]))
    batch_last_product(matrix, torch.rand(9, matrix.shape[1]))
    assert seen == [8, CHUNK]
