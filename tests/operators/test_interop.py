from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import lsqr

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.identity import Identity
from deft_ct.operators.interop import (
    FromDeepinv,
    FromODL,
    as_deepinv_physics,
    as_linear_operator,
    as_odl_operator,
    import_odl,
)
from deft_ct.testing import assert_adjoint, assert_linear

SCAN = ParallelGeometry(image_shape=(12, 10), pixel_mm=(1.0, 1.5), views=9, detectors=21, detector_mm=0.9)


def test_scipy_sees_the_same_matrix():
    op = RayTransform(SCAN)
    theirs = as_linear_operator(op, torch.float64)
    assert theirs.shape == (9 * 21, 120)
    x = torch.rand(12, 10, dtype=torch.float64)
    np.testing.assert_allclose(theirs @ x.numpy().ravel(), op(x).numpy().ravel())
    many = np.random.default_rng(0).random((120, 3))
    np.testing.assert_allclose(theirs @ many, np.stack([theirs @ column for column in many.T], 1), rtol=1e-12)
    y = np.random.default_rng(1).random(9 * 21)
    assert (theirs @ many[:, 0]) @ y == pytest.approx(many[:, 0] @ (theirs.T @ y))
    solution = lsqr(theirs, op(x).numpy().ravel(), atol=1e-12, btol=1e-12, iter_lim=2000)[0]
    np.testing.assert_allclose(op(torch.from_numpy(solution.reshape(12, 10))), op(x), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"torch\.float32 or torch\.float64"):
        as_linear_operator(op, torch.float16)


@pytest.fixture
def odl():
    pytest.importorskip("numpy")
    try:
        return import_odl()
    except ImportError:
        pytest.skip("ODL is not installed")


@pytest.mark.filterwarnings("ignore")  # ODL's own
def test_an_odl_operator_is_ours_with_the_plain_transpose(odl):
    tomo = pytest.importorskip("odl.applications.tomo")
    pytest.importorskip("astra")
    space = odl.uniform_discr([-6, -7], [6, 7], [24, 28], dtype="float32")
    geometry = tomo.parallel_beam_geometry(space, 11, 41)
    op = FromODL(tomo.RayTransform(space, geometry, impl="astra_cpu"))
    assert_adjoint(op, dtype=torch.float32)
    assert_linear(op, dtype=torch.float32)
    # ODL turns its detector a quarter of a turn further than we do, for images whose first axis is x.
    ours = ParallelGeometry(
        image_shape=(24, 28),
        pixel_mm=0.5,
        angles=geometry.angles - math.pi / 2,
        detectors=41,
        detector_mm=float(geometry.det_partition.cell_sides[0]),
    )
    x = torch.rand(3, 24, 28)
    y = RayTransform(ours)(x)
    assert float((op(x) - y).norm() / y.norm()) < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_ours_is_an_odl_operator_for_weighted_spaces(odl):
    op = RayTransform(SCAN)
    domain = odl.uniform_discr([-6, -7], [6, 8], [12, 10], dtype="float32")
    target = odl.uniform_discr([0, 0], [3, 2], SCAN.sinogram_shape, dtype="float32")
    theirs = as_odl_operator(op, domain, target)
    generator = np.random.default_rng(0)
    x, y = domain.element(generator.random(domain.shape)), target.element(generator.random(target.shape))
    assert float(theirs(x).inner(y)) == pytest.approx(float(x.inner(theirs.adjoint(y))), rel=1e-5)
    back = FromODL(theirs)
    z = torch.rand(12, 10)
    torch.testing.assert_close(back(z), op(z))
    torch.testing.assert_close(back.adjoint(op(z)), op.adjoint(op(z)), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="domain must be a space of shape"):
        as_odl_operator(op, target)


@pytest.mark.filterwarnings("ignore")
def test_importing_odl_keeps_print_options(odl):
    options = np.get_printoptions()
    import_odl()
    assert np.get_printoptions() == options


def test_a_physics_object_becomes_an_operator():
    """Any object with deepinv's two methods will do."""

    class Physics:
        def A(self, x):
            return 2 * x[..., ::2]

        def A_adjoint(self, y):
            out = torch.zeros(*y.shape[:-1], 6, dtype=y.dtype)
            out[..., ::2] = 2 * y
            return out

    assert_adjoint(FromDeepinv(Physics(), (1, 4, 6), (1, 4, 3)))
    assert not FromDeepinv(Physics(), (1, 4, 6), (1, 4, 3), matched=False).matched


def test_our_operator_becomes_physics():
    pytest.importorskip("deepinv.physics", exc_type=(ImportError, RuntimeError))
    op = RayTransform(FanGeometry.for_image((12, 10), 1.0, 5))
    physics = as_deepinv_physics(op)
    x = torch.rand(2, 1, 12, 10)
    torch.testing.assert_close(physics.A(x), op(x))
    torch.testing.assert_close(physics.A_adjoint(op(x)), op.adjoint(op(x)))


@pytest.mark.parametrize(("call", "extra"), [(as_deepinv_physics, "deepinv"), (as_odl_operator, "odl")])
def test_missing_packages_name_the_extra(monkeypatch, call, extra):
    for name in ("deepinv", "deepinv.physics", "odl"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install deft-ct\[{extra}\]"):
        call(RayTransform(SCAN))


@pytest.mark.filterwarnings("ignore")
def test_spaces_without_weights_are_plain(odl):
    op = Identity((4,))
    plain = odl.rn(4, dtype="float32")
    theirs = as_odl_operator(op, plain, plain)
    x, y = plain.element([1, 2, 3, 4]), plain.element([4, 0, 1, 1])
    assert list(theirs.adjoint(y)) == list(y) and float(theirs(x).inner(y)) == pytest.approx(11.0)
    assert theirs.adjoint.adjoint is theirs or list(theirs.adjoint.adjoint(x)) == list(x)
    weighted = odl.rn(4, dtype="float32", weighting=[1.0, 2.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="ODL spaces must have constant weights"):
        as_odl_operator(op, weighted, weighted)
