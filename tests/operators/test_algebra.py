"""Algebra of operators against that of dense matrices."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deft_ct.operators import HDR, Decomposable, GaussianBlur, Identity, Inpainting, stack
from deft_ct.operators.base import Operator
from deft_ct.operators.ct import ConeGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.photons import NOISE_FREE_PHOTONS
from deft_ct.operators.findings import Diagnosis, Finding, RegularisationHint
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.noise import PoissonNoise
from deft_ct.testing import assert_adjoint, assert_gradients, assert_linear


class Matrix(LinearOperator):
    """``y = M x`` on vectors, as a module with a buffer."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        super().__init__((columns,), (rows,))
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("matrix", torch.rand(rows, columns, generator=generator, dtype=torch.float64) - 0.5)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return x @ self.matrix.to(x).T

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return y @ self.matrix.to(y)

    def refined(self, factor: int) -> LinearOperator:
        return Matrix(self.range_shape[0], factor * self.domain_shape[0], 9)


class Knowing(Matrix):
    """A matrix that says back what it is asked about."""

    def diagnose(self, y: Tensor, weights: Tensor | None = None) -> Diagnosis:
        record = {"mean": float(y.mean()), "weight": None if weights is None else float(weights.mean())}
        return Diagnosis(record, (Finding("suspicious", "very"),), y + 1)

    def features(self, y: Tensor, weights: Tensor | None) -> Tensor:
        return torch.stack([y.flatten(1).mean(1), torch.zeros(len(y)) if weights is None else weights.flatten(1)[:, 0]])

    def regularisation_hint(self, y: Tensor, weights: Tensor | None) -> RegularisationHint | None:
        return RegularisationHint(y.flatten(1).mean(1), 7)

    def nominal_weights(self, y: Tensor) -> Tensor:
        return y**2

    def first_guess(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def preconditioner(self, like: Tensor):
        return lambda x: 3 * x


class Square(Operator):
    """``y = x^2``."""

    def __init__(self, length: int) -> None:
        super().__init__((length,), (length,))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return x**2


A, B, C = Matrix(3, 4, 0), Matrix(3, 4, 1), Matrix(4, 5, 2)
a, b, c = A.matrix, B.matrix, C.matrix
CASES = {
    "A + B": (A + B, a + b),
    "A - B": (A - B, a - b),
    "A * 2": (A * 2, 2 * a),
    "2.5 * A": (2.5 * A, 2.5 * a),
    "-A": (-A, -a),
    "A / 4": (A / 4, a / 4),
    "0 * A": (0 * A, 0 * a),
    "np.float32(2) * A": (np.float32(2) * A, 2 * a),
    "np.int64(2) * A": (np.int64(2) * A, 2 * a),
    "A @ C": (A @ C, a @ c),
    "A.T": (A.T, a.T),
    "(A @ C).T": ((A @ C).T, (a @ c).T),
    "A | B": (A | B, torch.cat([a, b])),
    "A | B | A": (A | B | A, torch.cat([a, b, a])),
    "stack one": (stack([A]), a),
    "2 * (A | -B) @ C": (2 * (A | -B) @ C, 2 * torch.cat([a, -b]) @ c),
    "(A + B).T @ A": ((A + B).T @ A, (a + b).T @ a),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_algebra_of_matrices(name):
    operator, matrix = CASES[name]
    assert (operator.range_shape, operator.domain_shape) == (matrix.shape[:1], matrix.shape[1:])
    eye = torch.eye(matrix.shape[1], dtype=torch.float64)
    torch.testing.assert_close(operator(eye).T, matrix)
    torch.testing.assert_close(operator.normal(eye), matrix.T @ matrix)
    torch.testing.assert_close(operator.pseudo_inverse(torch.eye(len(matrix)).double()).T, torch.linalg.pinv(matrix))
    # The power method is as exact as its tolerance.
    assert operator.norm(iterations=500, tolerance=1e-10) == pytest.approx(
        float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-4
    )
    if matrix.any():
        assert_adjoint(operator)
        assert_linear(operator)
    assert_gradients(operator)
    assert operator.matched
    x = torch.rand(2, 3, matrix.shape[1], dtype=torch.float64)
    assert torch.equal(operator @ x, operator(x))


def test_they_are_modules():
    operator = (2 * (A | B) @ C).T
    assert len(list(operator.buffers())) == 3
    moved = copy.deepcopy(operator).to(torch.float32)
    assert all(buffer.dtype == torch.float32 for buffer in moved.buffers())
    assert {buffer.device.type for buffer in moved.to("meta").buffers()} == {"meta"}
    assert A.T.T is A


def test_an_unmatched_part_makes_the_whole_unmatched():
    crooked = Matrix(3, 4, 3)
    crooked.matched = False
    for operator in (crooked + A, A - crooked, 2 * crooked, crooked @ C, crooked | A, crooked.T):
        assert not operator.matched


def test_multiples_fold():
    assert (A * -1 * -1).factor == 1 and (2 * (3 * A)).base is A


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: A + C, ValueError, r"add Matrix \(4,\) -> \(3,\) and Matrix \(5,\) -> \(4,\)"),
        (lambda: A - C, ValueError, r"subtract Matrix \(4,\) -> \(3,\) and Matrix \(5,\) -> \(4,\)"),
        (lambda: A + Square(4), TypeError, r"Square \(4,\) -> \(4,\): Square is not a linear operator"),
        (lambda: Square(4) + A, TypeError, "Square is not a linear operator"),
        (lambda: Square(4) - A, TypeError, "Square is not a linear operator"),
        (lambda: A + 1, TypeError, "int is not a linear operator"),
        (lambda: A + torch.ones(3, 4), TypeError, "Tensor is not a linear operator"),
        (lambda: A * B, TypeError, "write A @ B"),
        (lambda: A * torch.tensor(2.0), TypeError, r"real number, got Tensor; write float\(value\)"),
        (lambda: torch.tensor(2.0) * A, TypeError, "real number, got Tensor"),
        (lambda: np.ones(3) * A, TypeError, "real number, got ndarray"),
        (lambda: 2j * A, TypeError, "real number, got complex"),
        (lambda: "2" * A, TypeError, "real number, got str"),
        (lambda: math.nan * A, ValueError, "multiply an operator by nan"),
        (lambda: A * math.inf, ValueError, "multiply an operator by inf"),
        (lambda: A / 0, ValueError, "divide an operator by 0"),
        (lambda: A / math.inf, ValueError, "divide an operator by inf"),
        (lambda: A @ B, ValueError, r"domain \(4,\)\) with Matrix \(range \(3,\)\)"),
        (lambda: A @ Square(3), ValueError, r"domain \(4,\)\) with Square \(range \(3,\)\)"),
        (lambda: A @ 2, TypeError, "must be a tensor or an operator"),
        (lambda: A @ torch.ones(3), ValueError, r"trailing shape \(4,\)"),
        (lambda: A | C, ValueError, r"stack Matrix \(4,\) -> \(3,\) and Matrix \(5,\) -> \(4,\)"),
        (lambda: A | Square(4), TypeError, r"only linear operators can be stacked, got Square \(4,\)"),
        (lambda: stack([]), ValueError, "at least one"),
        (lambda: stack([A], axis=1), ValueError, "axis 1"),
    ],
)
def test_refusals_name_what_does_not_fit(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_nonlinear_composition_obeys_the_chain_rule():
    for operator in (A @ Square(4), Square(3) @ A, Square(3) @ A @ Square(4) @ C):
        assert not isinstance(operator, LinearOperator)
        assert_gradients(operator)
        x = torch.rand(2, *operator.domain_shape, dtype=torch.float64, requires_grad=True)
        v = torch.rand(2, *operator.range_shape, dtype=torch.float64)
        (expected,) = torch.autograd.grad(operator(x), x, v)
        torch.testing.assert_close(operator.vjp(x, v), expected)
    with pytest.raises(TypeError, match="has no pseudo-inverse"):
        (A @ Square(4)).pseudo_inverse(torch.rand(3))


@pytest.mark.parametrize("factor", [2.0, -0.5, -1.0])
@pytest.mark.parametrize(
    "base", [Identity((1, 4, 6)), Inpainting((1, 4, 6), (torch.arange(24).reshape(1, 4, 6) % 3 > 0).float()),
             GaussianBlur((1, 8, 6), kernel_size=5, std=0.8)],
    ids=["identity", "inpainting", "blur"],
)  # fmt: skip
def test_a_multiple_keeps_the_decomposition(base, factor):
    operator = factor * base
    assert isinstance(operator, Decomposable)
    svd = operator.svd()
    x = torch.rand(2, *base.domain_shape, generator=torch.Generator().manual_seed(0))
    singular = svd.singular_values.to(x)
    assert bool((singular >= 0).all())
    torch.testing.assert_close(svd.data_from_spectral(singular * svd.to_spectral(x)), operator(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(svd.data_to_spectral(operator(x)), singular * svd.to_spectral(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(svd.from_spectral(svd.to_spectral(x)), x, rtol=1e-4, atol=1e-5)
    assert not isinstance(factor * A, Decomposable)


def test_a_multiple_of_zero_has_a_decomposition_of_zeros():
    svd, y = (0 * Identity((2, 3))).svd(), torch.ones(1, 2, 3)
    assert not svd.singular_values.any() and not svd.data_to_spectral(y).any()


def test_a_multiple_undoes_its_factor_before_it_asks_about_data():
    base = Knowing(3, 4, 0)
    operator, y, w = -2 * base, torch.rand(2, 1, 3), torch.rand(2, 1, 3)
    assert operator.describe() == {"operator": "Scaled", "factor": -2.0, "of": {"operator": "Knowing"}}
    assert operator.diagnose(y, w) == base.diagnose(y / -2, 4 * w)
    torch.testing.assert_close(operator.diagnose(y).repaired, -2 * (y / -2 + 1))
    assert (0 * base).diagnose(y) == Diagnosis()
    torch.testing.assert_close(operator.features(y, w), base.features(y / -2, 4 * w))
    torch.testing.assert_close(operator.features(y, None), base.features(y / -2, None))
    assert torch.equal(operator.regularisation_hint(y, w).strength, base.regularisation_hint(y / -2, w).strength)
    torch.testing.assert_close(operator.nominal_weights(y), base.nominal_weights(y / -2) / 4)
    torch.testing.assert_close(operator.first_guess(y[:, 0]), base.first_guess(y[:, 0] / -2))
    torch.testing.assert_close(operator.preconditioner(y)(y), base.preconditioner(y)(y) / 4)
    torch.testing.assert_close(operator.refined(2)(torch.ones(8)), -2 * base.refined(2)(torch.ones(8)))


def test_other_compositions_claim_nothing_of_their_parts():
    base = Knowing(3, 4, 0)
    y = torch.rand(2, 1, 3)
    for operator in (base + A, base.T.T + A, Matrix(3, 3, 4) @ base, base | A):
        whole = y if operator.range_shape == (3,) else torch.cat([y, y], -1)
        with pytest.raises(ValueError, match="no features"):
            operator.features(whole, None)
        assert operator.regularisation_hint(whole, None) is None
        assert operator.preconditioner(whole) is None
        assert not operator.first_guess(whole[:, 0]).any()
        assert len(operator.describe()["of"]) == 2
        assert operator.refined(2).domain_shape == (8,)
    assert torch.equal((base + A).nominal_weights(y), A.nominal_weights(y))


def test_a_stack_asks_each_part_about_its_data():
    base = Knowing(3, 4, 0)
    y = torch.arange(12.0).reshape(2, 1, 6)  # whole numbers: a mean does not depend on the order of its terms
    first, second = (base | A).split(y)
    found = (base | base).diagnose(y)
    records = [{"mean": float(part.mean()), "weight": None} for part in (first, second)]
    assert found == Diagnosis({"parts": records}, (Finding("suspicious", "very"),))
    assert found.warnings == ("suspicious: very",)
    assert (base | base).diagnose(y, 2 * y).record["parts"][1]["weight"] == float((2 * second).mean())
    assert torch.equal(found.repaired, y + 1)
    assert torch.equal((base | A).diagnose(y).repaired, torch.cat([first + 1, second], -1))
    torch.testing.assert_close(
        (base | A).nominal_weights(y), torch.cat([base.nominal_weights(first), A.nominal_weights(second)], -1)
    )


def test_stacked_scans_are_the_scan_of_all_views():
    geometry = ParallelGeometry.for_image((16, 16), 1.0, 8)
    whole = RayTransform(geometry)
    half = [RayTransform(geometry.replace(angles=geometry.angle_array[part])) for part in (slice(0, 3), slice(3, 8))]
    x = torch.rand(2, 1, 16, 16)
    both = half[0] | half[1]
    assert both.range_shape == whole.range_shape
    torch.testing.assert_close(both(x), whole(x))
    torch.testing.assert_close(both.adjoint(whole(x)), whole.adjoint(whole(x)), rtol=1e-5, atol=1e-3)
    side = stack(half[:1] * 2, axis=-1)
    assert side.range_shape == (3, 2 * geometry.detectors)
    assert_adjoint(side)


def test_a_scaled_scan_reconstructs_like_the_scan():
    operator = RayTransform(ParallelGeometry.for_image((16, 16), 1.0, 24))
    y = operator(torch.rand(1, 1, 16, 16))
    torch.testing.assert_close((10 * operator).pseudo_inverse(10 * y), operator.pseudo_inverse(y))
    torch.testing.assert_close((10 * operator).features(10 * y, None), operator.features(y, None))


SHAPE = (1, 4, 4)
MASKS = (torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)) > 0.5).float()


@pytest.mark.parametrize(
    "build",
    [
        lambda mask: mask,
        lambda mask: mask.T,
        lambda mask: 2 * mask,
        lambda mask: mask - Identity(SHAPE),
        lambda mask: Identity(SHAPE) + mask,
        lambda mask: mask @ GaussianBlur(SHAPE, 3, 1.0),
        lambda mask: (GaussianBlur(SHAPE, 3, 1.0) @ mask) | mask,
        lambda mask: HDR(SHAPE) @ mask,
        lambda mask: mask @ HDR(SHAPE),
    ],
)
def test_parts_and_repetitions_keep_the_parameters_of_each_image(build):
    whole, x = build(Inpainting(SHAPE, MASKS)), torch.rand(3, *SHAPE)
    ones = [build(Inpainting(SHAPE, mask)) for mask in MASKS]
    alone = torch.cat([one(x[i : i + 1]) for i, one in enumerate(ones)])
    assert whole.images == 3 and ones[0].images is None
    torch.testing.assert_close(whole(x), alone)
    torch.testing.assert_close(whole[1:](x[1:]), alone[1:])
    rows = [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(whole.repeat(2)(x[rows]), alone[rows])
    torch.testing.assert_close(whole.repeat(2)[3:5](x[[1, 2]]), alone[1:])
    if isinstance(whole, LinearOperator):
        torch.testing.assert_close(whole[:2].adjoint(alone[:2]), whole.adjoint(alone)[:2])
        assert whole.norms() == pytest.approx([one.norm() for one in ones], rel=1e-6)
        assert whole.norm() == pytest.approx(max(one.norm() for one in ones), rel=1e-6)


def test_images_are_chosen_by_a_slice():
    with pytest.raises(TypeError, match="chosen by a slice, got int"):
        Inpainting(SHAPE, MASKS)[0]
    with pytest.raises(TypeError, match="chosen by a slice, got int"):
        A[0]
    assert A[0:1] is A and A.repeat(3) is A


def test_a_nonlinear_operator_cannot_be_scaled():
    with pytest.raises(TypeError, match="unsupported operand"):
        2 * HDR((3, 4, 4))


def test_the_norm_takes_fifty_iterations_of_the_power_method() -> None:
    """Of a matrix whose singular values lie close together, where another number of them would be seen."""

    class Close(Matrix):
        def __init__(self) -> None:
            super().__init__(40, 40, 3)
            self.matrix = torch.diag(torch.linspace(0.9, 1, 40, dtype=torch.float64))

    def estimate(iterations: int) -> float:
        x = torch.rand(40, generator=torch.Generator().manual_seed(0)).numpy().astype(np.float64)
        for _ in range(iterations):
            x = np.linspace(0.9, 1, 40) ** 2 * (x / np.linalg.norm(x))
        return float(np.linalg.norm(x) ** 0.5)

    assert estimate(50) - estimate(49) > 1e-5
    assert Close().norm(tolerance=0.0) == pytest.approx(estimate(50), abs=2e-6)
    assert Close().norms(tolerance=0.0) == [pytest.approx(estimate(50), abs=2e-6)]


def test_compositions_say_what_they_are_made_of() -> None:
    scan = RayTransform(ParallelGeometry.for_image((8, 8), 1.5, 4))
    other = Matrix(5, 3, 0)
    assert (2.0 * scan).grid_spacing == scan.grid_spacing == (1.5, 1.5)
    assert GaussianBlur((1, 8, 8), 1.0).grid_spacing is None
    for built in (scan + scan, stack([scan, scan])):
        assert built.grid_spacing == (1.5, 1.5)
    assert scan.T.grid_spacing is None and (scan.T @ scan).grid_spacing == (1.5, 1.5)
    assert other.T.describe() == {"operator": "Adjoint", "of": {"operator": "Matrix"}}
    both = Matrix(2, 5, 1) @ other
    assert both.describe()["of"] == [{"operator": "Matrix"}, {"operator": "Matrix"}]
    twice = both.refined(2)
    assert twice.domain_shape == (6,) and twice.range_shape == (2,)
    x = torch.arange(6.0, dtype=torch.float64)
    torch.testing.assert_close(twice(x), Matrix(2, 5, 1)(Matrix(5, 6, 9)(x)))
    assert "sign=-1" in repr(other - other) and "factor=2.5" in repr(2.5 * other) and "axis=0" in repr(stack([other]))
    torch.testing.assert_close((-other)(x[:3]), -other(x[:3]))
    with pytest.raises(ValueError, match="Identity cannot be simulated on a finer grid; use refine=1"):
        Identity((3,)).refined(2)


def test_a_scaled_scan_weights_noise_free_data_like_the_scan() -> None:
    scan = RayTransform(ParallelGeometry.for_image((8, 8), 1.5, 4))
    y = scan(torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.02)
    expected = PoissonNoise(photons=NOISE_FREE_PHOTONS).weights(y)
    torch.testing.assert_close(scan.nominal_weights(y), expected)
    torch.testing.assert_close((3.0 * scan).nominal_weights(3.0 * y), expected / 9)
    torch.testing.assert_close((0.0 * scan).nominal_weights(y), torch.ones_like(y))
    cone = RayTransform(ConeGeometry.for_image((3, 5, 6), 1.0, 4))
    assert cone.preconditioner(torch.zeros(1)) is None and scan.preconditioner(y) is not None


def test_finer_twins_of_compositions() -> None:
    """The picture is made finer, the data are not; an adjoint has no picture."""
    inner, outer = Inpainting((1, 4, 4), torch.ones(1, 4, 4)), HDR((1, 4, 4))
    with pytest.raises(ValueError, match="cannot be simulated on a finer grid"):
        (outer @ inner).refined(2)
    with pytest.raises(ValueError, match="Adjoint cannot be simulated on a finer grid; use refine=1"):
        inner.T.refined(2)
    scan = RayTransform(ParallelGeometry.for_image((6, 6), 1.0, 4))
    squared = HDR(scan.range_shape) @ scan
    fine = squared.refined(3)
    assert fine.domain_shape == (18, 18) and fine.range_shape == squared.range_shape
    x = torch.rand(1, 1, 6, 6).repeat_interleave(3, -1).repeat_interleave(3, -2)
    torch.testing.assert_close(fine(x[:, 0]), HDR(scan.range_shape)(scan.refined(3)(x[:, 0])))
    assert squared.describe()["of"] == [HDR(scan.range_shape).describe(), scan.describe()]
    assert inner.T.describe()["of"] == inner.describe() and inner.T.grid_spacing is None
