"""The symmetric form of the matrix, against the plain one."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients, assert_linear


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    size=st.integers(1, 13),
    half_views=st.integers(1, 9),
    detectors=st.integers(1, 25),
    middle=st.booleans(),
)
def test_equals_the_plain_matrix(size, half_views, detectors, middle):
    views = 2 * half_views
    angles = (np.arange(views) + 0.5 * middle) * math.pi / views
    geometry = ParallelGeometry(
        image_shape=(size, size), pixel_mm=1.3, angles=angles, detectors=detectors, detector_mm=1.1
    )
    op, plain = RayTransform(geometry, "symmetric"), RayTransform(geometry, "matrix")
    assert_adjoint(op)
    assert_adjoint(op, dtype=torch.float32)
    assert_linear(op)
    x = torch.rand(2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    # At 45 degrees either axis may be the major one, which gives other weights of the same accuracy.
    clear = np.abs(np.abs(np.tan(angles)) - 1) > 1e-6
    torch.testing.assert_close(op(x)[:, clear], plain(x)[:, clear], rtol=1e-9, atol=1e-9)
    y = plain(x)
    y[:, ~clear] = 0
    torch.testing.assert_close(op.adjoint(y), plain.adjoint(y), rtol=1e-9, atol=1e-9)


def test_memory_batches_gradients_and_copies():
    geometry = ParallelGeometry.for_image((40, 40), 1.0, 60)
    op, plain = RayTransform(geometry, "symmetric"), RayTransform(geometry, "matrix")
    x = torch.rand(3, 40, 40)
    assert torch.equal(copy.deepcopy(op)(x), op(x))
    plain(x)
    few, many = (pair._backend._pair.csr(torch.float32).nbytes for pair in (op, plain))
    assert many > 6 * few
    assert_batch_invariant(op, batch=3)
    assert_gradients(RayTransform(ParallelGeometry.for_image((5, 5), 1.0, 4), "symmetric"))


@pytest.mark.parametrize(
    "geometry",
    [
        ParallelGeometry.for_image((8, 8), 1.0, 5),
        ParallelGeometry.for_image((8, 8), 1.0, 4).replace(angles=[0.1, 0.2, 0.4, 0.9]),
        ParallelGeometry.for_image((8, 8), 1.0, 4).replace(angles=[2.0, 2.1]),
        ParallelGeometry.for_image((8, 8), 1.0, 8).replace(angular_range=2 * math.pi),
        ParallelGeometry.for_image((8, 8), 1.0, 4).replace(detector_offset_mm=0.5),
        ParallelGeometry.for_image((8, 9), 1.0, 4),
        ParallelGeometry.for_image((8, 8), (1.0, 1.1), 4),
        FanGeometry.for_image((8, 8), 1.0, 4),
    ],
)
def test_scans_without_the_symmetry_are_refused(geometry):
    with pytest.raises(ValueError, match="backend 'symmetric' needs"):
        RayTransform(geometry, "symmetric")
