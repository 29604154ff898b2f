from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse.linalg
import torch

from deft_ct.methods.classical import StoppingRule, cgls, sirt, tikhonov


def whitened(case, i):
    """``W^(1/2) A`` and ``W^(1/2) y`` of one sample."""
    root = case.weights[i, 0].flatten().sqrt().numpy()
    return root[:, None] * case.matrix(), root * case.y[i, 0].flatten().numpy()


@pytest.mark.parametrize("iterations", [1, 4, 9])
def test_cgls_iterates_are_those_of_lsqr(case, iterations):
    x, info = cgls(
        case.y, case.operator, weights=case.weights, stopping=StoppingRule(iterations=iterations, tolerance=0.0)
    )
    assert info.iterations.tolist() == [[iterations]] * 2
    for i in range(2):
        expected = scipy.sparse.linalg.lsqr(*whitened(case, i), iter_lim=iterations, atol=0, btol=0, conlim=0)[0]
        np.testing.assert_allclose(x[i, 0].numpy().ravel(), expected, rtol=1e-7, atol=1e-9)


def test_cgls_agrees_with_odl(case):
    options = np.get_printoptions()
    odl = pytest.importorskip("odl", reason="odl is not installed (pip install deft-ct[odl])", exc_type=ImportError)
    np.set_printoptions(**options)
    operator = odl.MatrixOperator(case.matrix())
    expected = operator.domain.zero()
    data = operator.range.element(case.y[0, 0].flatten().numpy())
    odl.solvers.conjugate_gradient_normal(operator, expected, data, niter=6)
    x, _ = cgls(case.y, case.operator, stopping=StoppingRule(iterations=6, tolerance=0.0))
    np.testing.assert_allclose(x[0, 0].numpy().ravel(), np.asarray(expected.asarray()), rtol=1e-8, atol=1e-10)


def test_cgls_stops_at_the_level_of_the_noise(case):
    x, info = cgls(
        case.y,
        case.operator,
        weights=case.weights,
        stopping=StoppingRule(iterations=100, tolerance=1e-6),
        discrepancy=1.0,
    )
    level = (case.weights * (case.operator(x) - case.y).square()).mean((-2, -1))
    assert bool(info.converged.all()) and bool((level <= 1).all())
    before, _ = cgls(
        case.y[0],
        case.operator,
        weights=case.weights[0],
        stopping=StoppingRule(iterations=int(info.iterations[0]) - 1, tolerance=0.0),
    )
    assert float((case.weights[0] * (case.operator(before) - case.y[0]).square()).mean()) > 1


def test_cgls_goes_on_from_a_start(case, dense):
    matrix = torch.randn(30, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.randn(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = np.linalg.lstsq(matrix.numpy(), y.numpy(), rcond=None)[0]
    start = torch.full((12,), 5.0, dtype=torch.float64)
    x, info = cgls(y, dense(matrix, (12,)), x0=start, stopping=StoppingRule(iterations=50, tolerance=1e-12))
    assert bool(info.converged)
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-10)
    assert torch.equal(start, torch.full((12,), 5.0, dtype=torch.float64))  # the caller's tensor stays as it was


def test_tikhonov_identity_is_damped_least_squares(case):
    x, info = tikhonov(
        case.y,
        case.operator,
        weights=case.weights,
        strength=50.0,
        penalty="identity",
        stopping=StoppingRule(iterations=500, tolerance=1e-11),
    )
    assert bool(info.converged.all())
    for i in range(2):
        a, b = whitened(case, i)
        expected = np.linalg.solve(a.T @ a + 50.0 * np.eye(a.shape[1]), a.T @ b)
        np.testing.assert_allclose(x[i, 0].numpy().ravel(), expected, atol=1e-8)


def test_tikhonov_gradient_solves_its_normal_equations(case):
    x, info = tikhonov(
        case.y,
        case.operator,
        weights=case.weights,
        strength=800.0,
        stopping=StoppingRule(iterations=1000, tolerance=1e-11),
    )
    assert bool(info.converged.all())
    size = case.operator.domain_shape[0]
    one = np.zeros((size, size))
    one[np.arange(size - 1), np.arange(size - 1)], one[np.arange(size - 1), np.arange(1, size)] = -1, 1
    gradient = np.concatenate([np.kron(one, np.eye(size)), np.kron(np.eye(size), one)])
    for i in range(2):
        a, b = whitened(case, i)
        expected = np.linalg.solve(a.T @ a + 800.0 * gradient.T @ gradient, a.T @ b)
        np.testing.assert_allclose(x[i, 0].numpy().ravel(), expected, atol=1e-8)


def test_tikhonov_rejects_bad_settings(case):
    with pytest.raises(ValueError, match="strength must be a finite number >= 0"):
        tikhonov(case.y, case.operator, strength=-1.0)
    with pytest.raises(ValueError, match="penalty must be"):
        tikhonov(case.y, case.operator, strength=1.0, penalty="wavelet")  # type: ignore[arg-type]


def test_sirt_is_the_textbook_iteration(case):
    a, y = case.matrix(), case.y[0, 0].flatten().numpy()
    rows, columns = a.sum(1), a.sum(0)
    r = np.where(rows > 1e-6 * rows.max(), 1 / np.maximum(rows, 1e-300), 0)
    c = np.where(columns > 0, 1 / columns, 0)
    expected = np.zeros(a.shape[1])
    for _ in range(12):
        expected = np.maximum(expected + c * (a.T @ (r * (y - a @ expected))), 0)
    x, _ = sirt(case.y, case.operator, stopping=StoppingRule(iterations=12, tolerance=0.0))
    np.testing.assert_allclose(x[0, 0].numpy().ravel(), expected, atol=1e-10)


def test_sirt_agrees_with_landweber_of_odl(case):
    """SIRT is Landweber's iteration for ``R^(1/2) A C^(1/2)``."""
    options = np.get_printoptions()
    odl = pytest.importorskip("odl", reason="odl is not installed (pip install deft-ct[odl])", exc_type=ImportError)
    np.set_printoptions(**options)
    a = case.matrix()
    rows, columns = a.sum(1), a.sum(0)
    r = np.where(rows > 1e-6 * rows.max(), 1 / np.maximum(rows, 1e-300), 0) ** 0.5
    c = columns**-0.5
    operator = odl.MatrixOperator(r[:, None] * a * c)
    z = operator.domain.zero()
    data = operator.range.element(r * case.y[1, 0].flatten().numpy())
    odl.solvers.landweber(operator, z, data, niter=15, omega=1.0)
    x, _ = sirt(case.y, case.operator, stopping=StoppingRule(iterations=15, tolerance=0.0), nonnegative=False)
    np.testing.assert_allclose(x[1, 0].numpy().ravel(), c * np.asarray(z.asarray()), atol=1e-9)


def test_weighted_sirt_converges_to_nonnegative_weighted_least_squares(dense):
    generator = torch.Generator().manual_seed(2)
    matrix = torch.rand(40, 9, generator=generator, dtype=torch.float64)
    y = torch.rand(40, generator=generator, dtype=torch.float64)
    w = 0.1 + torch.rand(40, generator=generator, dtype=torch.float64)
    expected, _ = scipy.optimize.nnls((w.sqrt()[:, None] * matrix).numpy(), (w.sqrt() * y).numpy())
    x, _ = sirt(y, dense(matrix, (9,)), weights=w, stopping=StoppingRule(iterations=20000, tolerance=1e-13))
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_sirt_lowers_its_misfit_at_every_iteration(case, weighted):
    reach = case.operator(torch.ones_like(case.truth))
    w = case.weights if weighted else torch.where(reach > 1e-3, 1 / reach.clamp_min(1e-3), 0.0)
    misfits = []
    for k in range(1, 8):
        x, _ = sirt(
            case.y,
            case.operator,
            weights=case.weights if weighted else None,
            stopping=StoppingRule(iterations=k, tolerance=0.0),
        )
        misfits.append((w * (case.operator(x) - case.y).square()).sum((-2, -1)))
    assert all(bool((later < earlier).all()) for earlier, later in itertools.pairwise(misfits))


def test_sirt_leaves_unseen_pixels_and_missing_rays_alone(dense):
    matrix = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [3.0, 1.0, 0.0]])
    x, _ = sirt(
        torch.tensor([1.0, 9.0, 2.0]),
        dense(matrix, (3,)),
        x0=torch.tensor([0.0, 0.0, 0.25]),
        stopping=StoppingRule(iterations=500),
    )
    torch.testing.assert_close(x, torch.tensor([0.6, 0.2, 0.25]), rtol=0, atol=2e-3)
