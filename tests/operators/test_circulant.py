"""The preconditioner of the primal-dual method against dense linear algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deft_ct.operators import LinearOperator
from deft_ct.operators.circulant import GRADIENT_STEP, POSITIVITY_STEP, circulant
from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform

SIDE = 8


class Multiply(LinearOperator):
    """``A x = w x``, pixel by pixel."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__(tuple(weights.shape), tuple(weights.shape))
        self.register_buffer("weights", weights)

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        return y * self.weights


def differences(shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """``D^T D`` of forward differences with a free border, over distances in units of the smallest spacing."""
    total = np.zeros((math.prod(shape), math.prod(shape)))
    for axis, step in enumerate(spacing):
        along = np.diff(np.eye(shape[axis]), axis=0) * (min(spacing) / step)
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        total += np.kron(np.kron(np.eye(before), along.T @ along), np.eye(after))
    return total


def dense(apply: object, shape: tuple[int, ...]) -> np.ndarray:
    units = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return np.stack([apply(unit).numpy().ravel() for unit in units], 1)  # type: ignore[operator]


SCANS = [
    ParallelGeometry.for_image((9, 7), (1.0, 1.3), 12),
    FanGeometry.for_image((8, 8), 1.0, 10, source_to_center_mm=30, source_to_detector_mm=50),
    ParallelGeometry.for_image((8, 11), 1.0, 3),
    ConeGeometry.for_image((6, 7, 8), (1.5, 1.0, 1.2), 9, source_to_center_mm=30, source_to_detector_mm=50),
]


@pytest.mark.parametrize("geometry", SCANS, ids=["parallel", "fan", "three views", "cone"])
def test_the_step_sizes_are_the_largest_that_converge(
    geometry: ParallelGeometry | FanGeometry | ConeGeometry,
) -> None:
    """``T^-1 >= A^T A + g D^T D + p I``: the largest eigenvalue of the product is at most 1, but for 5 % of margin."""
    shape, operator = geometry.image_shape, RayTransform(geometry, "matrix")
    found = circulant(operator, torch.zeros(shape, dtype=torch.float64))
    bound = dense(operator.normal, shape) + found.gradient * differences(shape, geometry.pixel_mm)
    bound = bound + found.positivity * np.eye(len(bound))
    largest = np.linalg.eigvals(dense(found, shape) @ bound).real.max()
    assert largest == pytest.approx(1 / 1.05, rel=0.01)


def test_of_the_identity_the_multiplier_is_a_formula() -> None:
    operator = Multiply(torch.ones(SIDE, SIDE, dtype=torch.float64))
    found = circulant(operator, torch.zeros(SIDE, SIDE, dtype=torch.float64))
    level = 1.2  # of high frequencies, with its margin
    assert found.gradient == pytest.approx(GRADIENT_STEP * level)
    assert found.positivity == pytest.approx(POSITIVITY_STEP * level)
    fy, fx = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)
    square = 4 * np.sin(np.pi * fy) ** 2 + 4 * np.sin(np.pi * fx) ** 2
    inverse = 3.0 + GRADIENT_STEP * level * square + POSITIVITY_STEP * level
    np.testing.assert_allclose(found.multiplier / found.multiplier[0, 0], inverse[0, 0] / inverse, rtol=1e-12)


def test_it_multiplies_in_the_fourier_basis_and_leaves_its_input_alone() -> None:
    operator = RayTransform(SCANS[0], "matrix")
    x = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, kept = circulant(operator, x), x.clone()
    expected = np.fft.irfft2(np.fft.rfft2(x.numpy()) * found.multiplier.numpy(), s=(9, 7))
    np.testing.assert_allclose(found(x), expected, rtol=1e-10)
    assert torch.equal(x, kept)


def test_it_is_computed_once_for_each_dtype() -> None:
    operator = RayTransform(SCANS[0], "matrix")
    double = circulant(operator, torch.zeros(9, 7, dtype=torch.float64))
    single = circulant(operator, torch.zeros(9, 7))
    assert double is circulant(operator, torch.ones(9, 7, dtype=torch.float64))
    assert single is not double and single.multiplier.dtype == torch.float32
    np.testing.assert_allclose(single.multiplier, double.multiplier, rtol=2e-2)
    assert circulant(RayTransform(SCANS[0], "matrix"), torch.zeros(9, 7)) is not single


def test_an_operator_that_sees_nothing_at_the_centre_has_one_too() -> None:
    found = circulant(Multiply(torch.zeros(SIDE, SIDE)), torch.zeros(SIDE, SIDE))
    assert (found.gradient, found.positivity) == (GRADIENT_STEP, POSITIVITY_STEP)
    assert bool(found.multiplier.isfinite().all())


class EachOne(Multiply):
    """``A x = w_i x``: weights for each image of a batch."""

    def __init__(self, weights: torch.Tensor) -> None:
        LinearOperator.__init__(self, tuple(weights.shape[1:]), tuple(weights.shape[1:]))
        self.register_buffer("weights", weights)

    @property
    def images(self) -> int:
        return len(self.weights)


def test_an_operator_of_one_image_is_asked_for_one_at_a_time() -> None:
    weights = torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    like = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    found, expected = circulant(EachOne(weights), like), circulant(Multiply(weights[0]), like)
    torch.testing.assert_close(found.multiplier, expected.multiplier)


def test_channels_share_the_largest_symbol() -> None:
    like = torch.zeros(2, SIDE, SIDE, dtype=torch.float64)
    two = torch.stack([torch.ones_like(like[0]), 3 * torch.ones_like(like[0])])
    assert circulant(Multiply(two), like).gradient == pytest.approx(9 * GRADIENT_STEP * 1.2)
    assert circulant(Multiply(two.flip(0)), like).gradient == pytest.approx(9 * GRADIENT_STEP * 1.2)


def test_data_that_are_no_images_have_no_circulant() -> None:
    with pytest.raises(ValueError, match=r"needs images or volumes, got an operator on \(4,\)"):
        circulant(Multiply(torch.ones(4)), torch.zeros(4))


def test_impulses_lie_at_the_centre_and_a_third_from_the_border() -> None:
    """The symbol of a product with weights is the mean of the squared weights at the four places."""
    weights = torch.zeros(9, 12, dtype=torch.float64)
    for n, place in enumerate([(4, 6), (3, 6), (4, 4), (3, 6)]):
        weights[place] = float(n + 1)
    found = circulant(Multiply(weights), torch.zeros(9, 12, dtype=torch.float64))
    squares = [float(weights[place]) ** 2 for place in [(4, 6), (3, 6), (4, 4), (3, 6)]]
    assert found.gradient == pytest.approx(GRADIENT_STEP * 1.2 * np.mean(squares))


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((8, 8), (1.0, 1.0)), ((9, 6), (1.0, 1.0)), ((9, 6), (2.0, 1.6)), ((4, 6, 8), (1.0, 1.0, 1.0)),
        ((4, 6, 8), (3.0, 1.5, 2.0)),
    ],
)  # fmt: skip
def test_the_multiplier_is_that_of_a_second_program(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """Of a blur without borders: three times the mean over each ring of frequencies, at least the highest level."""
    generator = np.random.default_rng(0)
    kernel = np.zeros(shape)
    kernel[(slice(0, 2),) * len(shape)] = generator.random((2,) * len(shape))
    transfer = np.fft.fftn(kernel)

    class Periodic(LinearOperator):
        def __init__(self) -> None:
            super().__init__(shape, shape)

        @property
        def grid_spacing(self) -> tuple[float, ...]:
            return spacing

        def _apply(self, x: torch.Tensor, symbol: np.ndarray) -> torch.Tensor:
            axes = tuple(range(-len(shape), 0))
            return torch.from_numpy(np.fft.ifftn(symbol * np.fft.fftn(x.numpy(), axes=axes), axes=axes).real)

        def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
            return self._apply(x, transfer)

        def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
            return self._apply(y, transfer.conj())

    found = circulant(Periodic(), torch.zeros(shape, dtype=torch.float64))
    symbol = (abs(transfer) ** 2)[..., : shape[-1] // 2 + 1]
    fy, fx = np.fft.fftfreq(shape[-2])[:, None], np.fft.rfftfreq(shape[-1])
    radius = np.broadcast_to(np.hypot(fy, fx), symbol.shape)
    ring = np.rint(radius * max(shape[-2:])).astype(int)
    means = np.empty_like(symbol)
    for n in range(shape[0]) if len(shape) == 3 else [None]:
        for r in np.unique(ring):
            here = ring[n] == r if n is not None else ring == r
            part = symbol[n] if n is not None else symbol
            (means[n] if n is not None else means)[here] = part[here].mean()
    level = 1.2 * symbol[radius > 0.1].max()
    assert found.gradient == pytest.approx(GRADIENT_STEP * level)
    assert found.positivity == pytest.approx(POSITIVITY_STEP * level)
    *along, rows, columns = (4 * (min(spacing) / step) ** 2 for step in spacing)
    square = rows * np.sin(np.pi * fy) ** 2 + columns * np.sin(np.pi * fx) ** 2
    if along:
        square = square + along[0] * np.sin(np.pi * np.fft.fftfreq(shape[0])[:, None, None]) ** 2
    inverse = np.maximum(3 * means, level) + GRADIENT_STEP * level * square + POSITIVITY_STEP * level
    np.testing.assert_allclose(found.multiplier / found.multiplier.max(), inverse.min() / inverse, rtol=1e-9)
