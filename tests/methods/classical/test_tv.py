from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.methods.classical import StoppingRule
from deft_ct.methods.classical.tv import total_variation, tv_objective
from deft_ct.operators.circulant import circulant
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform


def numpy_objective(x, matrix, y, weights, strength):
    dy, dx = np.zeros_like(x), np.zeros_like(x)
    dy[:-1], dx[:, :-1] = np.diff(x, axis=0), np.diff(x, axis=1)
    return 0.5 * np.sum(weights * (matrix @ x.ravel() - y) ** 2) + strength * np.hypot(dy, dx).sum()


def smoothed_minimum(matrix, y, weights, strength, shape, epsilon, bounds):
    """Minimum of the objective with |d| replaced by sqrt(d^2 + eps^2) - eps <= |d|: a lower bound of the minimum."""

    def value(flat):
        x = flat.reshape(shape)
        dy, dx = np.zeros_like(x), np.zeros_like(x)
        dy[:-1], dx[:, :-1] = np.diff(x, axis=0), np.diff(x, axis=1)
        length = np.sqrt(dy**2 + dx**2 + epsilon**2)
        residual = matrix @ flat - y
        gradient = matrix.T @ (weights * residual)
        uy, ux = strength * dy / length, strength * dx / length
        out = -(uy + ux)
        out[1:] += uy[:-1]
        out[:, 1:] += ux[:, :-1]
        return 0.5 * np.sum(weights * residual**2) + strength * (length - epsilon).sum(), gradient + out.ravel()

    start = np.full(matrix.shape[1], 0.1)
    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 50}
    return scipy.optimize.minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun


@pytest.mark.parametrize("nonnegative", [True, False])
def test_reaches_the_minimum_that_a_smooth_solver_bounds_from_below(case, nonnegative):
    matrix = case.matrix()
    x, info = total_variation(
        case.y, case.operator, weights=case.weights, strength=20.0,
        stopping=StoppingRule(iterations=2000, tolerance=1e-7), nonnegative=nonnegative,
    )  # fmt: skip
    assert bool(info.converged.all())
    y, w = case.y[0, 0].flatten().numpy(), case.weights[0, 0].flatten().numpy()
    reached = numpy_objective(x[0, 0].numpy(), matrix, y, w, 20.0)
    bounds = [(0 if nonnegative else None, None)] * matrix.shape[1]
    below = smoothed_minimum(matrix, y, w, 20.0, case.operator.domain_shape, 1e-6, bounds)
    assert below * (1 - 1e-6) <= reached <= below * (1 + 1e-4)


def test_objective_is_the_stated_one(case):
    x = case.truth + 0.01 * torch.randn(case.truth.shape, generator=torch.Generator().manual_seed(0)).double()
    ours = tv_objective(x, case.y, case.operator, weights=case.weights, strength=7.0)
    matrix = case.matrix()
    for i in range(2):
        y, w = case.y[i, 0].flatten().numpy(), case.weights[i, 0].flatten().numpy()
        assert float(ours[i, 0]) == pytest.approx(numpy_objective(x[i, 0].numpy(), matrix, y, w, 7.0), rel=1e-12)


def test_agrees_with_the_primal_dual_solver_of_odl(case):
    options = np.get_printoptions()
    odl = pytest.importorskip("odl", reason="odl is not installed (pip install deft-ct[odl])", exc_type=ImportError)
    np.set_printoptions(**options)
    size = case.operator.domain_shape[0]
    y, w, matrix = case.y[0, 0].flatten().numpy(), case.weights[0, 0].flatten().numpy(), case.matrix()
    space = odl.uniform_discr([0, 0], [size, size], [size, size])
    flat = odl.MatrixOperator(np.sqrt(w)[:, None] * matrix)
    norm = float(np.linalg.norm(np.sqrt(w)[:, None] * matrix, 2))
    # One dual step for both terms, so the gradient is scaled to the norm of the projector.
    factor = norm / 8**0.5
    gradient = factor * odl.Gradient(space, method="forward", pad_mode="symmetric")
    fit = 0.5 * odl.functionals.L2NormSquared(flat.range).translated(flat.range.element(np.sqrt(w) * y))
    variation = (20.0 / factor) * odl.functionals.GroupL1Norm(gradient.range)
    x = space.zero()
    odl.solvers.pdhg(
        x, odl.functionals.IndicatorNonnegativity(space), odl.functionals.SeparableSum(fit, variation),
        odl.BroadcastOperator(_on_images(odl, flat, space), gradient),
        niter=600, tau=0.1 / norm, sigma=4.5 / norm,
    )  # fmt: skip
    theirs = numpy_objective(np.array(x.asarray()), matrix, y, w, 20.0)
    image, _ = total_variation(
        case.y,
        case.operator,
        weights=case.weights,
        strength=20.0,
        stopping=StoppingRule(iterations=1000, tolerance=1e-6),
    )
    ours = numpy_objective(image[0, 0].numpy(), matrix, y, w, 20.0)
    assert ours <= theirs <= 1.005 * ours
    np.testing.assert_allclose(image[0, 0].numpy(), np.array(x.asarray()), atol=5e-3)


def _on_images(odl, operator, space):
    class OnImages(odl.Operator):
        def __init__(self):
            super().__init__(space, operator.range, linear=True)

        def _call(self, x):
            return operator(operator.domain.element(np.asarray(x.asarray()).ravel()))

        @property
        def adjoint(self):
            return Back()

    class Back(odl.Operator):
        def __init__(self):
            super().__init__(operator.range, space, linear=True)

        def _call(self, y):
            return space.element(np.asarray(operator.adjoint(y).asarray()).reshape(space.shape))

        @property
        def adjoint(self):
            return OnImages()

    return OnImages()


def test_without_variation_it_is_nonnegative_least_squares(case, dense):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(60, 20, generator=generator, dtype=torch.float64)
    y = torch.randn(60, generator=generator, dtype=torch.float64)
    expected, _ = scipy.optimize.nnls(matrix.numpy(), y.numpy())
    x, _ = total_variation(
        y, dense(matrix, (4, 5)), strength=0.0, stopping=StoppingRule(iterations=5000, tolerance=1e-12)
    )
    np.testing.assert_allclose(x.numpy().ravel(), expected, atol=1e-8)


def test_result_does_not_depend_on_the_batch(case32):
    y = torch.cat([case32.y, 0.5 * case32.y, case32.y.flip(-1)])
    w = torch.cat([case32.weights] * 3)
    strength = torch.tensor([[5.0], [20.0], [1.0], [9.0], [40.0], [3.0]])
    together, info = total_variation(
        y, case32.operator, weights=w, strength=strength, stopping=StoppingRule(iterations=80, tolerance=1e-3)
    )
    assert len(info.iterations.unique()) > 1  # samples leave the batch at different times
    for i in range(len(y)):
        alone, one = total_variation(
            y[i],
            case32.operator,
            weights=w[i],
            strength=float(strength[i]),
            stopping=StoppingRule(iterations=80, tolerance=1e-3),
        )
        assert torch.equal(alone, together[i])
        assert torch.equal(one.iterations, info.iterations[i])


def test_pixel_units_with_scaled_strength_are_the_same_problem(case):
    geometry = case.operator.geometry
    millimetres = RayTransform(geometry.replace(pixel_mm=1.7, detector_mm=1.7))
    arguments = {"weights": case.weights, "stopping": StoppingRule(iterations=60, tolerance=0.0)}
    pixels, _ = total_variation(case.y, case.operator, strength=20.0, **arguments)
    physical, _ = total_variation(case.y, millimetres, strength=20.0 * 1.7, **arguments)
    torch.testing.assert_close(physical * 1.7, pixels, rtol=1e-8, atol=1e-10)


def test_scaling_the_weights_scales_the_strength(case):
    few, _ = total_variation(
        case.y, case.operator, weights=case.weights, strength=20.0, stopping=StoppingRule(iterations=50, tolerance=0)
    )
    many, _ = total_variation(
        case.y,
        case.operator,
        weights=1e4 * case.weights,
        strength=2e5,
        stopping=StoppingRule(iterations=50, tolerance=0),
    )
    torch.testing.assert_close(few, many, rtol=1e-9, atol=1e-12)


def test_rays_of_weight_zero_are_ignored(case):
    weights, spoiled = case.weights.clone(), case.y.clone()
    weights[..., 5, :] = 0
    spoiled[..., 5, :] = 1e3
    x0 = torch.zeros_like(case.truth)
    expected, _ = total_variation(
        case.y, case.operator, weights=weights, x0=x0, strength=5.0, stopping=StoppingRule(iterations=30)
    )
    x, _ = total_variation(
        spoiled, case.operator, weights=weights, x0=x0, strength=5.0, stopping=StoppingRule(iterations=30)
    )
    torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)


def test_float32_agrees_with_float64(case):
    double, _ = total_variation(
        case.y, case.operator, weights=case.weights, strength=20.0, stopping=StoppingRule(iterations=100, tolerance=0)
    )
    single, _ = total_variation(
        case.y.float(),
        case.operator,
        weights=case.weights.float(),
        strength=20.0,
        stopping=StoppingRule(iterations=100, tolerance=0),
    )
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)


def test_sign_constraint(case):
    y = case.y - 2.0
    stopping = StoppingRule(iterations=50)
    assert total_variation(y, case.operator, strength=0.1, stopping=stopping)[0].min() >= 0
    assert total_variation(y, case.operator, strength=0.1, stopping=stopping, nonnegative=False)[0].min() < 0


def test_stops_by_its_tolerance_and_reports_it(case):
    _, loose = total_variation(
        case.y, case.operator, weights=case.weights, strength=20.0, stopping=StoppingRule(tolerance=1e-2)
    )
    _, tight = total_variation(
        case.y,
        case.operator,
        weights=case.weights,
        strength=20.0,
        stopping=StoppingRule(iterations=1000, tolerance=1e-5),
    )
    assert bool(loose.converged.all()) and bool((loose.residual <= 1e-2).all())
    assert bool((loose.iterations < tight.iterations).all())
    _, none = total_variation(
        case.y, case.operator, weights=case.weights, strength=20.0, stopping=StoppingRule(iterations=7, tolerance=0.0)
    )
    assert none.iterations.tolist() == [[7], [7]] and not bool(none.converged.any())
    assert none.record()["stopping_residual"] == [None, None]


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    views=st.integers(1, 9),
    detectors=st.integers(3, 18),
    fan=st.booleans(),
)
def test_preconditioner_bounds_the_normal_operator(size, views, detectors, fan):
    """``T^-1 >= A^T A + g D^T D + p I``, the condition of convergence, by dense eigenvalues."""
    common = {"image_shape": size, "pixel_mm": 1.3, "views": views, "detectors": detectors, "detector_mm": 1.1}
    geometry = (
        FanGeometry(**common, source_to_center_mm=60.0, source_to_detector_mm=90.0)
        if fan
        else ParallelGeometry(**common)
    )
    operator = RayTransform(geometry)
    t = circulant(operator, torch.zeros((), dtype=torch.float64))
    n = size[0] * size[1]
    basis = torch.eye(n, dtype=torch.float64).reshape(n, *size)
    dy = torch.nn.functional.pad(basis.diff(dim=1), (0, 0, 0, 1)).flatten(1)
    dx = torch.nn.functional.pad(basis.diff(dim=2), (0, 1)).flatten(1)
    a = operator(basis).flatten(1)
    normal = a @ a.T + t.gradient * (dy @ dy.T + dx @ dx.T) + t.positivity * torch.eye(n, dtype=torch.float64)
    inverse = torch.linalg.inv(t(basis).reshape(n, n))
    smallest = torch.linalg.eigvalsh((inverse + inverse.T) / 2 - normal)[0]
    assert smallest >= -1e-2 * torch.linalg.eigvalsh(normal)[-1]


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_rejects_a_bad_strength(case, strength):
    with pytest.raises(ValueError, match="strength must be finite and >= 0"):
        total_variation(case.y, case.operator, strength=strength)


def test_rejects_strengths_of_another_batch(case):
    with pytest.raises(ValueError, match="batch shape"):
        total_variation(case.y, case.operator, strength=torch.ones(3))


def test_rejects_an_operator_on_something_else_than_images(dense):
    with pytest.raises(ValueError, match="needs images"):
        total_variation(torch.zeros(4), dense(torch.ones(4, 6), (6,)), strength=1.0)
