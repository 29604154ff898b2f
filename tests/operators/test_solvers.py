"""Conjugate gradients with a preconditioner, against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deft_ct.operators.solvers import conjugate_gradient, largest_singular_value

SIZE = 30


def _system(seed=0):
    """An ill-conditioned symmetric matrix, two right-hand sides and the solutions, float64."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.logspace(-2, 2, SIZE, dtype=torch.float64)) @ basis.T
    rhs = torch.randn(2, SIZE, generator=generator, dtype=torch.float64)
    return matrix, rhs, torch.linalg.solve(matrix, rhs.T).T


def _nearly_inverse(matrix):
    noise = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    spoilt = vectors @ torch.diag(values.rsqrt())
    return spoilt @ (torch.eye(SIZE).double() + 0.02 * (noise + noise.T)) @ spoilt.T


@pytest.mark.parametrize("start", [None, 0.5])
def test_a_preconditioner_leads_to_the_same_solution_in_fewer_steps(start):
    matrix, rhs, exact = _system()
    inverse = _nearly_inverse(matrix)
    assert float(torch.linalg.eigvalsh(inverse).min()) > 0
    x0 = None if start is None else torch.full_like(rhs, start)
    found, used = conjugate_gradient(
        lambda x: x @ matrix, rhs, x0=x0, iterations=200, tolerance=1e-10, preconditioner=lambda r: r @ inverse
    )
    plain, steps = conjugate_gradient(lambda x: x @ matrix, rhs, x0=x0, iterations=200, tolerance=1e-10)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(plain, exact, rtol=1e-5, atol=1e-5)
    assert used < steps / 2


def test_samples_do_not_influence_one_another():
    matrix, rhs, _ = _system()
    inverse = _nearly_inverse(matrix)

    def solve(b):
        return conjugate_gradient(
            lambda x: x @ matrix, b, iterations=5, tolerance=1e-3, preconditioner=lambda r: r @ inverse
        )[0]

    both = solve(torch.stack([rhs[0], 1e-3 * rhs[1]]))
    torch.testing.assert_close(both[1:], solve(1e-3 * rhs[1:]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_samples_that_are_single_numbers(preconditioned: bool) -> None:
    scale = torch.tensor([0.5, 3.0, 40.0], dtype=torch.float64)
    inverse = (lambda r: 2 * r) if preconditioned else None
    found, used = conjugate_gradient(
        lambda x: scale * x, torch.tensor([1.0, -6.0, 20.0]).double(), iterations=5, tolerance=1e-9,
        preconditioner=inverse,
    )  # fmt: skip
    torch.testing.assert_close(found, torch.tensor([2.0, -2.0, 0.5]).double())
    assert used == 1


def test_an_estimate_of_one_is_not_taken_for_the_norm() -> None:
    """Of this map the first estimate of the power method is 1, and the norm is not."""
    start = torch.rand(SIZE, generator=torch.Generator().manual_seed(0))
    values = torch.linspace(0.1, 2.0, SIZE)
    values = values / (values * start / start.norm()).norm()
    found = largest_singular_value(lambda x: values * x, (SIZE,), torch.device("cpu"), iterations=2000, tolerance=1e-9)
    assert found == pytest.approx(float(values.max()) ** 0.5, rel=1e-4) != pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_power_method_is_that_of_numpy(iterations: int) -> None:
    matrix, _, _ = _system()
    found = largest_singular_value(
        lambda x: matrix.float() @ x, (SIZE,), torch.device("cpu"), iterations=iterations, tolerance=0.0
    )
    x = torch.rand(SIZE, generator=torch.Generator().manual_seed(0)).double().numpy()
    for _ in range(iterations):
        x = matrix.numpy() @ (x / np.linalg.norm(x))
    assert found == pytest.approx(np.linalg.norm(x) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("tolerance", [0.1, 1e-2, 1e-4])
def test_it_stops_at_the_first_residual_within_the_tolerance(tolerance: float, preconditioned: bool) -> None:
    matrix, rhs, _ = _system()
    size, options = rhs[:1].norm(), {"preconditioner": (lambda r: r.clone()) if preconditioned else None}

    def residual(iterations: int, stop: float = 0.0) -> tuple[float, int]:
        x, used = conjugate_gradient(lambda v: v @ matrix, rhs[:1], iterations=iterations, tolerance=stop, **options)
        return float((rhs[:1] - x @ matrix).norm() / size), used

    reached, used = residual(500, tolerance)
    assert reached <= tolerance < residual(used - 1)[0]


@pytest.mark.parametrize("start", [None, 0.5])
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_each_step_is_that_of_a_second_program(iterations: int, preconditioned: bool, start: float | None) -> None:
    """Hestenes and Stiefel, and algorithm 11.5.1 of Golub and Van Loan, in NumPy; as many steps as were asked for."""
    matrix, rhs, _ = _system()
    inverse = _nearly_inverse(matrix) if preconditioned else torch.eye(SIZE, dtype=torch.float64)
    a, m = matrix.numpy(), inverse.numpy()
    expected = []
    for b in rhs.numpy():
        x = np.zeros(SIZE) if start is None else np.full(SIZE, start)
        r = b - a @ x
        z = p = m @ r
        for _ in range(iterations):
            alpha = (r @ z) / (p @ a @ p)
            x, previous = x + alpha * p, r @ z
            r = r - alpha * (a @ p)
            z = m @ r
            p = z + (r @ z) / previous * p
        expected.append(x)
    found, used = conjugate_gradient(
        lambda v: v @ matrix, rhs, x0=None if start is None else torch.full_like(rhs, start), iterations=iterations,
        tolerance=0.0, preconditioner=(lambda v: v @ inverse) if preconditioned else None,
    )  # fmt: skip
    assert used == iterations
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
