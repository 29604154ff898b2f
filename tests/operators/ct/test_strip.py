"""The strip-area matrix, against ASTRA's, closed forms and the conservation of mass."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform, system_matrix
from deft_ct.operators.ct.strip_matrix import strip_matrix, strip_nonzeros
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients, assert_linear

FEW = settings(max_examples=20, deadline=None, derandomize=True)
PARALLEL = ParallelGeometry.for_image((24, 24), 1.0, 10)


@FEW
@given(data=st.data())
def test_matrix_equals_astras_own_matrix(random_geometries, data):
    astra = pytest.importorskip("astra")
    from deft_ct.operators.ct.convert import to_astra

    geometry = data.draw(random_geometries(kinds=("parallel",), size=10))
    geometry = geometry.replace(pixel_mm=geometry.pixel_rc[0])
    volume, projection = to_astra(geometry)
    projector = astra.create_projector("strip", projection, volume)
    theirs = astra.matrix.get(astra.projector.matrix(projector)).toarray()
    astra.projector.delete(projector)
    csr = strip_matrix(geometry, np.float64)
    ours = csr_array((csr.data, csr.indices, csr.indptr), shape=csr.shape).toarray()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * geometry.pixel_rc[0])  # theirs is float32


@FEW
@given(data=st.data())
def test_adjoint_linearity_and_bound_on_random_scans(random_geometries, data):
    geometry = data.draw(random_geometries(kinds=("parallel",)))
    op = RayTransform(geometry, kernel="strip")
    assert_adjoint(op, dtype=torch.float64)
    assert_adjoint(op, dtype=torch.float32)
    assert_linear(op)
    csr = strip_matrix(geometry)
    assert csr.data.size <= strip_nonzeros(geometry)
    assert csr.indices.dtype == csr.indptr.dtype == np.int32
    assert (csr.data > 0).all()


@FEW
@given(data=st.data())
def test_every_view_keeps_the_mass(random_geometries, data):
    geometry = data.draw(random_geometries(kinds=("parallel",)))
    shift = abs(geometry.detector_offset_mm - geometry.axis_offset_mm)
    geometry = geometry.replace(detectors=math.ceil(2 * (geometry.radius_mm + shift) / geometry.detector_mm) + 1)
    x = torch.rand(geometry.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mass = RayTransform(geometry, kernel="strip")(x).sum(-1) * geometry.detector_mm
    torch.testing.assert_close(mass, (x.sum() * math.prod(geometry.pixel_rc)).expand_as(mass), rtol=1e-10, atol=0)


def test_entries_are_the_areas_of_a_pixel_cut_by_hand():
    # One pixel of side 2 under strips of width 1. Straight: 2 mm in each of two. Along the diagonal the shadow is a
    # triangle of half base sqrt 2 and height 2 sqrt 2.
    geometry = ParallelGeometry(
        image_shape=(1, 1), pixel_mm=2.0, angles=[0.0, math.pi / 4], detectors=4, detector_mm=1.0
    )
    y = RayTransform(geometry, kernel="strip")(torch.ones(1, 1, dtype=torch.float64))
    tail = (math.sqrt(2) - 1) ** 2
    expected = torch.tensor([[0, 2, 2, 0], [tail, 2 - tail, 2 - tail, tail]], dtype=torch.float64)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_it_is_the_mean_of_thin_rays_over_the_element(phantom_image):
    wide = PARALLEL.replace(detectors=9, detector_mm=4.0, axis_offset_mm=0.7)
    thin = wide.replace(detectors=9 * 400, detector_mm=0.01)
    x = phantom_image(wide, [(0.02, 3.0, -4.0, 9.0, 6.0, 0.6)])
    # Joseph's thin rays sample across the lines of pixels, so the two agree up to the discretisation only.
    mean = RayTransform(thin, "matrix")(x).unflatten(-1, (9, 400)).mean(-1)
    y = RayTransform(wide, kernel="strip")(x)
    assert float((y - mean).norm() / mean.norm()) < 5e-3


def test_a_disc_converges_with_the_expected_order(line_integrals, phantom_image):
    # Averages over elements as wide as a pixel h of a sinogram with square-root edges: the element's mean is that of
    # the closed form, so what remains is the grid. Blurring the edge by h leaves an error sqrt(h) on a width h: order
    # 1. Against the mean over four times wider elements, the edge is blurred in both, and the error falls faster.
    disc = [(0.02, 1.0, -1.5, 9.0, 9.0, 0.0)]
    errors = []
    for size in (32, 64, 128):
        geometry = ParallelGeometry.for_image((size, size), 24 / size, 41)
        fine = geometry.replace(detectors=geometry.detectors * 32, detector_mm=geometry.detector_mm / 32)
        exact = line_integrals(fine, disc).unflatten(-1, (geometry.detectors, 32)).mean(-1)
        y = RayTransform(geometry, kernel="strip")(phantom_image(geometry, disc, 16))
        errors.append(float((y - exact).norm() / exact.norm()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([1.0, 1.0], abs=0.15), errors
    assert errors[-1] < 3e-3


def test_wide_elements_are_closer_to_the_closed_form_than_with_thin_rays(line_integrals, phantom_image):
    disc = [(0.02, 1.0, -1.5, 9.0, 9.0, 0.0)]
    geometry = ParallelGeometry.for_image((64, 64), 24 / 64, 41, detector_mm=1.5)
    fine = geometry.replace(detectors=geometry.detectors * 64, detector_mm=geometry.detector_mm / 64)
    exact = line_integrals(fine, disc).unflatten(-1, (geometry.detectors, 64)).mean(-1)
    x = phantom_image(geometry, disc, 16)
    strip, thin = (
        float((RayTransform(geometry, "matrix", kernel=k)(x) - exact).norm() / exact.norm())
        for k in ("strip", "joseph")
    )
    assert strip < 0.25 * thin


def test_batches_gradients_pickling_and_blocks(monkeypatch):
    from deft_ct.operators.ct.backends import matrix

    op = RayTransform(PARALLEL, kernel="strip")
    assert (op.backend, op.kernel, op.matched) == ("matrix", "strip", True)
    assert_batch_invariant(op, batch=21)
    assert_gradients(RayTransform(ParallelGeometry.for_image((5, 5), 1.0, 4), kernel="strip"))
    x = torch.rand(2, 24, 24, dtype=torch.float64)
    y = op(x)
    assert torch.equal(pickle.loads(pickle.dumps(op))(x), y)
    assert not torch.allclose(y, RayTransform(PARALLEL)(x), rtol=1e-3)  # the two kernels do not share a matrix
    z = op.adjoint(y)
    monkeypatch.setattr(matrix, "STORED_BYTES", 0)
    monkeypatch.setattr(matrix, "BLOCK_BYTES", 10**5)
    torch.testing.assert_close(op(x), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(op.adjoint(y), z, rtol=1e-12, atol=1e-12)


def test_what_it_cannot_do_is_refused():
    fan = FanGeometry.for_image((8, 8), 1.0, 4)
    with pytest.raises(ValueError, match="kernel 'strip' is for parallel beams, got a FanGeometry"):
        RayTransform(fan, kernel="strip")
    with pytest.raises(ValueError, match=r"kernel 'strip' needs backend='matrix' .* got backend='joseph'"):
        RayTransform(PARALLEL, "joseph", kernel="strip")
    with pytest.raises(ValueError, match="unknown kernel 'area'; choose one of joseph, strip"):
        RayTransform(PARALLEL, kernel="area")


def test_matrices_of_more_entries_than_int32_counts_are_refused(monkeypatch):
    monkeypatch.setattr("deft_ct.operators.ct.strip_matrix.strip_nonzeros", lambda scan: 2**31 - 1)
    assert len(strip_matrix(PARALLEL, np.float32).data) > 0
    monkeypatch.setattr("deft_ct.operators.ct.strip_matrix.strip_nonzeros", lambda scan: 2**31)
    with pytest.raises(ValueError, match="would have up to 2147483648 entries, more than int32"):
        strip_matrix(PARALLEL, np.float32)
    ends = system_matrix._row_ends(np.array([2**31 - 2, 1]))
    assert ends.tolist() == [0, 2**31 - 2, 2**31 - 1]
    with pytest.raises(ValueError, match="would have 2147483648 entries, more than int32"):
        system_matrix._row_ends(np.array([2**31 - 1, 1]))
