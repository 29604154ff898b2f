from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.system_matrix import joseph_matrix, joseph_nonzeros
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients, assert_linear

PARALLEL = ParallelGeometry.for_image((24, 24), 1.0, 10)
FAN = FanGeometry.for_image((24, 24), 1.0, 10, source_to_center_mm=60, source_to_detector_mm=100)
CURVED = FanGeometry.for_image((24, 24), 1.0, 10, source_to_center_mm=60, source_to_detector_mm=100, detector="curved")
ELLIPSES = [(0.02, 3.0, -4.0, 9.0, 6.0, 0.6), (0.01, -2.0, 1.0, 2.5, 4.0, -0.3)]
FLOAT64 = ["matrix", "joseph"]
EVERYTHING = settings(max_examples=40, deadline=None, derandomize=True)
FEW = settings(max_examples=15, deadline=None, derandomize=True)


@pytest.mark.parametrize("backend", FLOAT64)
@EVERYTHING
@given(data=st.data())
def test_adjoint_and_linearity_on_random_scans(backend, random_geometries, data):
    op = RayTransform(data.draw(random_geometries()), backend)
    assert_adjoint(op, dtype=torch.float64)
    assert_adjoint(op, dtype=torch.float32)
    assert_linear(op)
    assert op.matched


def test_a_single_ray_that_meets_a_sum_near_zero_has_an_adjoint() -> None:
    """An example that Hypothesis found: ``A x`` is small beside its summands."""
    geometry = ParallelGeometry(
        image_shape=(6, 6), pixel_mm=(2.625, 0.5), angles=(4.53125,), detectors=1, detector_mm=1.0,
        axis_offset_mm=0.9375,
    )  # fmt: skip
    assert assert_adjoint(RayTransform(geometry, "joseph"), dtype=torch.float32) < 1e-6


@EVERYTHING
@given(data=st.data())
def test_adjoint_of_astra_on_random_scans(random_geometries, data):
    pytest.importorskip("astra")
    geometry = data.draw(random_geometries(kinds=("parallel", "flat")))
    square = geometry.replace(pixel_mm=geometry.pixel_rc[0])  # ASTRA's fan projector knows only square pixels
    op = RayTransform(square, "astra")
    assert_adjoint(op, dtype=torch.float32)
    assert_linear(op, dtype=torch.float32)


@pytest.mark.parametrize("backend", FLOAT64)
@FEW
@given(data=st.data())
def test_gradients_on_random_scans(backend, random_geometries, data):
    assert_gradients(RayTransform(data.draw(random_geometries(size=7)), backend))


def test_backward_of_astra_is_its_adjoint():
    pytest.importorskip("astra")
    op = RayTransform(PARALLEL, "astra")
    x = torch.rand(3, 1, *op.domain_shape, requires_grad=True)
    v = torch.rand(3, 1, *op.range_shape)
    (gradient,) = torch.autograd.grad((op(x) * v).sum(), x)
    torch.testing.assert_close(gradient, op.adjoint(v), rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["matrix", "joseph", "astra"])
@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_batch_gives_the_bits_of_its_members(backend, geometry):
    if backend == "astra":
        pytest.importorskip("astra")
    assert_batch_invariant(RayTransform(geometry, backend), batch=21)


def test_leading_axes_are_batch_axes():
    op = RayTransform(PARALLEL)
    x = torch.rand(2, 3, 1, 24, 24)
    y = op(x)
    assert y.shape == (2, 3, 1, *op.range_shape)
    assert torch.equal(y[1, 2, 0], op(x[1, 2, 0]))
    assert op(x[:0]).shape == (0, 3, 1, *op.range_shape)
    assert torch.equal(op.T(y), op.adjoint(y))


@pytest.mark.parametrize("make", [ParallelGeometry, FanGeometry])
@pytest.mark.parametrize("backend", FLOAT64)
def test_sinograms_converge_to_the_closed_form(make, backend, line_integrals, phantom_image):
    # Near a tangent the sinogram of a disc of radius R behaves as sqrt(R - s). Area-averaged pixels and Joseph's
    # interpolation blur it by a kernel as wide as a pixel h, which leaves an error sqrt(h) on a strip of width h: h in
    # the mean square. With c = 0.0198 for the squared error of a blurred square root (kernel tri * box * box, mean over
    # all angles) the relative error is sqrt(3 c) h / R = 0.244 h / R.
    radius, errors = 9.0, []
    for size in (32, 64, 128):
        options = {} if make is ParallelGeometry else {"source_to_center_mm": 60, "source_to_detector_mm": 100}
        geometry = make.for_image((size, size), 24 / size, 41, detector_mm=0.13, **options)
        disc = [(0.02, 1.0, -1.5, radius, radius, 0.0)]
        exact = line_integrals(geometry, disc)
        y = RayTransform(geometry, backend)(phantom_image(geometry, disc, 16))
        errors.append(float((y - exact).norm() / exact.norm()))
        assert errors[-1] == pytest.approx(0.244 * 24 / size / radius, rel=0.08)
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders == pytest.approx([1.0, 1.0], abs=0.06), errors


@pytest.mark.parametrize("size", [64, 128, 256])
def test_rays_along_the_border_stay_inside(size):
    geometry = ParallelGeometry.for_image((size, size), 1.5, 60)
    csr = joseph_matrix(geometry)
    assert csr.indices.min() >= 0
    assert csr.indices.max() < size * size
    assert np.isfinite(csr.data).all()
    assert (csr.data >= 0).all()
    # The kernels of the other backend read cells start + slope k and one more, of lines padded by 1 on the left and 2
    # on the right.
    pytest.importorskip("numba")
    op = RayTransform(geometry, "joseph")
    free = op._backend
    crossed = free._first < free._last
    for k in (free._first[crossed], free._last[crossed] - 1):
        cell = np.trunc(free._start[crossed] + free._slope[crossed] * k)
        assert cell.min() >= 0
        assert cell.max() + 1 <= size + 2
        assert (free._start[crossed] + free._slope[crossed] * k).min() >= 0  # truncation is rounding down
    x = torch.rand(size, size, dtype=torch.float64)
    torch.testing.assert_close(op(x), RayTransform(geometry, "matrix")(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("geometry", [PARALLEL, FAN, CURVED], ids=["parallel", "fan", "curved"])
def test_smooth_objects_converge_with_second_order(geometry):
    errors = []
    for factor in (2, 4, 8):
        fine = geometry.refined(factor)
        (height, width), (dy, dx) = fine.image_shape, fine.pixel_rc
        x, y = (np.arange(width) - (width - 1) / 2) * dx, ((height - 1) / 2 - np.arange(height)) * dy
        image = np.exp(-((x[None] - 1) ** 2 + (y[:, None] + 2) ** 2) / (2 * 2.0**2))
        rays = fine.rays()
        offset = np.array([1.0, -2.0]) - rays.origin
        distance = offset[..., 0] * rays.direction[..., 1] - offset[..., 1] * rays.direction[..., 0]
        exact = torch.from_numpy(2.0 * math.sqrt(2 * math.pi) * np.exp(-(distance**2) / (2 * 2.0**2)))
        errors.append(float((RayTransform(fine)(torch.from_numpy(image)) - exact).norm() / exact.norm()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(orders) > 1.9, (errors, orders)


@pytest.mark.parametrize("geometry", [PARALLEL, FAN, CURVED], ids=["parallel", "fan", "curved"])
@pytest.mark.parametrize("offsets", [(0.0, 0.0), (1.3, -0.7)])
def test_turning_the_object_turns_the_scan(geometry, offsets):
    geometry = geometry.replace(detector_offset_mm=offsets[0], axis_offset_mm=offsets[1])
    x = torch.rand(24, 24, dtype=torch.float64)
    turned = RayTransform(geometry.replace(angles=geometry.angle_array + math.pi / 2))(torch.rot90(x, 1))
    torch.testing.assert_close(turned, RayTransform(geometry)(x), rtol=1e-10, atol=1e-10)


def test_mirroring_the_object_mirrors_the_scan():
    geometry = CURVED.replace(detector_offset_mm=0.4, axis_offset_mm=-0.9)
    mirrored = geometry.replace(angles=-geometry.angle_array, detector_offset_mm=-0.4, axis_offset_mm=0.9)
    x = torch.rand(24, 24, dtype=torch.float64)
    y = RayTransform(mirrored)(x.flip(1)).flip(1)
    torch.testing.assert_close(y, RayTransform(geometry)(x), rtol=1e-10, atol=1e-10)


def test_a_view_from_above_sums_columns():
    geometry = ParallelGeometry(
        image_shape=(5, 7), pixel_mm=(2.0, 3.0), angles=[0.0, math.pi / 2], detectors=7, detector_mm=3.0
    )
    x = torch.arange(35, dtype=torch.float64).reshape(5, 7)
    y = RayTransform(geometry)(x)
    torch.testing.assert_close(y[0], 2.0 * x.sum(0))  # rays along y: column by column, x to the right
    side = RayTransform(geometry.replace(detectors=5, detector_mm=2.0))(x)[1]
    torch.testing.assert_close(side, 3.0 * x.sum(1).flip(0))  # the detector axis is +y there, rows count downwards


@FEW
@given(data=st.data())
def test_matrix_equals_astras_own_matrix(random_geometries, data):
    astra = pytest.importorskip("astra")
    from deft_ct.operators.ct.convert import to_astra

    geometry = data.draw(random_geometries(kinds=("parallel",), size=10))
    geometry = geometry.replace(pixel_mm=geometry.pixel_rc[0])
    volume, projection = to_astra(geometry)
    projector = astra.create_projector("linear", projection, volume)
    theirs = astra.matrix.get(astra.projector.matrix(projector)).toarray()
    astra.projector.delete(projector)
    csr = joseph_matrix(geometry, np.float64)
    ours = np.zeros(csr.shape)
    rows = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
    np.add.at(ours, (rows, csr.indices), csr.data)
    # Rays at 45 degrees may take either major axis, which gives other weights of the same accuracy.
    clear = np.abs(np.abs(np.tan(geometry.angle_array)) - 1) > 1e-3
    keep = np.repeat(clear, geometry.detectors)
    np.testing.assert_allclose(ours[keep], theirs[keep], atol=2e-4 * max(geometry.pixel_rc))


def test_backends_agree_within_the_discretisation(phantom_image):
    pytest.importorskip("astra")
    for geometry, tolerance in ((PARALLEL, 1e-4), (FAN, 0.03)):
        x = phantom_image(geometry, ELLIPSES).float()
        ours, theirs = RayTransform(geometry, "matrix")(x), RayTransform(geometry, "astra")(x)
        assert float((ours - theirs).norm() / theirs.norm()) < tolerance


def test_nonzeros_are_bounded():
    for geometry in (PARALLEL, FAN):
        csr = joseph_matrix(geometry)
        assert 0.5 * joseph_nonzeros(geometry) < csr.data.size <= joseph_nonzeros(geometry)
        assert csr.indices.dtype == csr.indptr.dtype == np.int32


def test_matrices_are_shared_and_operators_pickle():
    first, second = RayTransform(PARALLEL), RayTransform(PARALLEL.replace())
    assert first._backend._pair is second._backend._pair
    x = torch.rand(24, 24)
    for twin in (pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        assert torch.equal(twin(x), first(x))
        assert twin.geometry == first.geometry


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch warns about itself in forward mode
def test_double_backward_jvp_and_vmap():
    op = RayTransform(FAN)
    x = torch.rand(3, 24, 24, dtype=torch.float64)
    tangent = torch.rand_like(x)
    _, pushed = torch.func.jvp(op, (x,), (tangent,))
    torch.testing.assert_close(pushed, op(tangent))
    torch.testing.assert_close(torch.vmap(op)(x), op(x), rtol=0, atol=0)
    hessian = torch.autograd.functional.vhp(lambda z: 0.5 * (op(z) ** 2).sum(), x, tangent)[1]
    torch.testing.assert_close(hessian, op.normal(tangent))


def test_norm_is_the_largest_singular_value():
    op = RayTransform(PARALLEL)
    csr = joseph_matrix(PARALLEL, np.float64)
    exact = float(torch.linalg.matrix_norm(csr.to_torch().to_dense(), ord=2))
    assert op.norm() == pytest.approx(exact, rel=1e-3)


def test_half_precision_is_computed_in_float32():
    assert RayTransform(PARALLEL)(torch.rand(24, 24).half()).dtype == torch.float32


def test_bad_input_is_refused():
    op = RayTransform(PARALLEL)
    with pytest.raises(ValueError, match=r"trailing shape \(24, 24\), got shape \(24, 25\)"):
        op(torch.rand(24, 25))
    with pytest.raises(TypeError, match="floating-point"):
        op(torch.ones(24, 24, dtype=torch.int64))
    with pytest.raises(ValueError, match="unknown backend 'astro'; choose one of auto, "):
        RayTransform(PARALLEL, "astro")
    with pytest.raises(TypeError, match="geometry"):
        RayTransform((24, 24))


def test_astra_says_what_it_cannot_do():
    pytest.importorskip("astra")
    with pytest.raises(ValueError, match="curved"):
        RayTransform(CURVED, "astra")
    with pytest.raises(ValueError, match="square pixels"):
        RayTransform(FAN.replace(pixel_mm=(1.0, 1.1)), "astra")
    with pytest.raises(TypeError, match="float32"):
        RayTransform(PARALLEL, "astra")(torch.rand(24, 24, dtype=torch.float64))
