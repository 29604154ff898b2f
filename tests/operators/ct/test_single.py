"""One image alone: the compiled product gives the bits of the batch, and is only used where it does."""

from __future__ import annotations

import sys

import pytest
import torch

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.backends import single
from deft_ct.operators.ct.backends.matrix import batch_last_product
from deft_ct.operators.ct.backends.single import SingleProduct
from deft_ct.operators.ct.system_matrix import joseph_matrix
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients

PARALLEL = ParallelGeometry.for_image((24, 20), 1.0, 11)
FAN = FanGeometry.for_image((24, 20), 1.0, 11, source_to_center_mm=60, source_to_detector_mm=100)


@pytest.fixture(autouse=True)
def _small_matrices_too(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(single, "LEAST_ENTRIES", 0)


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_one_image_has_the_bits_of_a_batch(geometry, dtype, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    op = RayTransform(geometry.replace(axis_offset_mm=0.2))  # a matrix that no other test holds
    assert_batch_invariant(op, batch=9, dtype=dtype)
    products = op._backend._pair._single
    assert len(products) == 2
    # The kernel follows the order of the rows. Where a processor's library does not, torch's product must be kept.
    matrix = op._backend._pair.get(dtype, torch.device("cpu"), transpose=False)
    product = products[dtype, False]
    x = torch.rand(5, matrix.shape[1], dtype=dtype, generator=torch.Generator().manual_seed(1))
    for row, expected in zip(x, batch_last_product(matrix, x), strict=True):
        assert torch.equal(product(row), expected)
        if product.compiled:
            assert torch.equal(product._multiply(row), expected)


def test_the_compiled_kernel_sums_each_row():
    matrix = joseph_matrix(FAN).to_torch()
    product = SingleProduct(matrix)
    x = torch.rand(matrix.shape[1])
    torch.testing.assert_close(product._multiply(x), matrix.to_dense() @ x, rtol=1e-5, atol=1e-4)


def test_torchs_product_stays_where_a_bit_differs(monkeypatch):
    matrix = joseph_matrix(PARALLEL).to_torch()
    true = SingleProduct._multiply
    monkeypatch.setattr(SingleProduct, "_multiply", lambda self, x: true(self, x) * (1 + 1e-6))
    product = SingleProduct(matrix)
    assert not product.compiled
    x = torch.rand(matrix.shape[1])
    assert torch.equal(product(x), (matrix @ x[:, None]).squeeze(1))


def test_a_numba_that_does_not_work_leaves_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "deft_ct.operators.ct.backends._row_kernel", None)  # importing it fails
    matrix = joseph_matrix(PARALLEL).to_torch()
    product = SingleProduct(matrix)
    assert not product.compiled
    x = torch.rand(matrix.shape[1])
    assert torch.equal(product(x), (matrix @ x[:, None]).squeeze(1))


def test_small_matrices_and_a_missing_numba_leave_torch(monkeypatch):
    matrix = joseph_matrix(PARALLEL).to_torch()
    monkeypatch.setattr(single.importlib.util, "find_spec", lambda name: None)
    assert not SingleProduct(matrix).compiled
    monkeypatch.undo()
    assert matrix.values().numel() < single.LEAST_ENTRIES
    assert not SingleProduct(matrix).compiled


def test_adjoint_and_gradients_through_it():
    op = RayTransform(PARALLEL.replace(image_shape=(6, 5), detectors=9, axis_offset_mm=0.1))
    assert_adjoint(op, dtype=torch.float64)
    assert_gradients(op)
    x = torch.rand(6, 5, dtype=torch.float64, requires_grad=True)
    op(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * op.normal(x.detach()))
