"""One image alone has the bits that it has in any batch, whatever order of sums the sparse library chooses."""

from __future__ import annotations

import pytest
import torch

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.backends import batch_product
from deft_ct.operators.ct.backends.batch_product import CHUNK, batch_last_product
from deft_ct.operators.ct.system_matrix import joseph_matrix
from deft_ct.testing import assert_batch_invariant

PARALLEL = ParallelGeometry.for_image((24, 20), 1.0, 11)
FAN = FanGeometry.for_image((24, 20), 1.0, 11, source_to_center_mm=60, source_to_detector_mm=100)


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [2, 4, 7, 8, 15, 16, 19])
def test_batches_of_every_size_have_the_bits_of_their_members(geometry, dtype, batch):
    assert_batch_invariant(RayTransform(geometry, backend="matrix"), batch=batch, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_product_is_that_of_the_dense_matrix(dtype):
    matrix = joseph_matrix(FAN).to_torch().to(dtype)
    x = torch.rand(21, matrix.shape[1], dtype=dtype)
    torch.testing.assert_close(batch_last_product(matrix, x), x @ matrix.to_dense().T, rtol=1e-5, atol=1e-4)
    assert batch_last_product(matrix, x[:0]).shape == (0, matrix.shape[0])


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
    monkeypatch.setattr(batch_product, "_equal_widths", lambda dtype, threads: (8, CHUNK))
    true = torch.nn.functional.pad
    monkeypatch.setattr(torch.nn.functional, "pad", lambda x, p: seen.append(x.shape[1] + p[1]) or true(x, p))
    matrix = joseph_matrix(PARALLEL).to_torch()
    batch_last_product(matrix, torch.rand(3, matrix.shape[1]))
    batch_last_product(matrix, torch.rand(9, matrix.shape[1]))
    assert seen == [8, CHUNK]
