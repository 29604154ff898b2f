"""Residuals and weights against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import GaussianNoise, Identity, NoNoise, PoissonNoise
from deft_ct.operators.base import NOISE_FREE_STD
from deft_ct.operators.ct import ParallelGeometry, RayTransform

SHAPE = (1, 3, 4)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def test_residual_of_counts_is_to_the_expected_counts() -> None:
    x, y = uniform(2, *SHAPE), uniform(2, *SHAPE, seed=1)
    likelihood = Measurement(Identity(SHAPE), PoissonNoise(1e4, post_log=False)).likelihood(y)
    np.testing.assert_allclose(likelihood.residual(x), y.numpy() - np.exp(-x.numpy()), rtol=1e-12)


@pytest.mark.parametrize("floor", [0.1, 0.5])
def test_a_ray_without_counts_weighs_as_the_floor(floor: float) -> None:
    zero = torch.full((1, 1, 2, 2), float(np.log(1e3 / floor)), dtype=torch.float64)
    np.testing.assert_allclose(PoissonNoise(1e3, floor=floor).weights(zero), floor, rtol=1e-12)
    counts = PoissonNoise(1e3, floor=floor, post_log=False)
    np.testing.assert_allclose(counts.weights(torch.zeros(1, 1, 2, 2)), 1e6 / floor, rtol=1e-6)


def test_weights_of_a_fit() -> None:
    scan = RayTransform(ParallelGeometry.for_image((4, 4), 1.0, 3))
    y = uniform(2, 1, *scan.range_shape)
    np.testing.assert_allclose(Measurement(scan).fit_weights(y), 1e6 * np.exp(-y.numpy()), rtol=1e-12)
    np.testing.assert_allclose(Measurement(scan, GaussianNoise(0.5)).fit_weights(y), 4.0, rtol=1e-12)
    np.testing.assert_array_equal(Measurement(Identity(SHAPE)).fit_weights(uniform(2, *SHAPE)), NOISE_FREE_STD**-2)


def test_the_level_and_the_relative_weights_are_of_each_image() -> None:
    y = uniform(3, *SHAPE)
    inverse = 1e4 * np.exp(-y.numpy())
    likelihood = Measurement(Identity(SHAPE), PoissonNoise(1e4)).likelihood(y)
    mean = inverse.mean((1, 2, 3))
    term = DataTerm(likelihood, weighted=True)
    np.testing.assert_allclose(term.sigma, mean**-0.5, rtol=1e-12)
    np.testing.assert_allclose(term.weights, inverse / mean[:, None, None, None], rtol=1e-12)
    plain = DataTerm(likelihood)
    np.testing.assert_allclose(plain.sigma, np.sqrt((1 / inverse).mean((1, 2, 3))), rtol=1e-12)
    np.testing.assert_array_equal(plain.weights, 1.0)


def test_noise_free_data_get_the_level_of_an_operator_of_norm_one() -> None:
    operator = 4 * Identity(SHAPE)
    term = DataTerm(Measurement(operator, NoNoise()).likelihood(uniform(2, *SHAPE)), noise_free=0.01)
    np.testing.assert_allclose(term.sigma, 0.04, rtol=1e-6)


def test_the_proximal_step_solves_the_normal_equations() -> None:
    y, x = uniform(2, *SHAPE), uniform(2, *SHAPE, seed=1)
    term = DataTerm(Measurement(3 * Identity(SHAPE), PoissonNoise(1e4)).likelihood(y), weighted=True)
    damping = torch.tensor([0.5, 2.0], dtype=torch.float64)
    w, d = term.weights.numpy(), damping.numpy()[:, None, None, None]
    expected = 3 * w * (y.numpy() - 3 * x.numpy()) / (9 * w + d)
    np.testing.assert_allclose(term.correction(x, damping, iterations=100), expected, rtol=2e-3, atol=1e-4)


def test_known_weights_go_with_their_images() -> None:
    y = uniform(3, *SHAPE)
    likelihood = Measurement(Identity(SHAPE), PoissonNoise(1e4)).likelihood(y)
    assert torch.equal(likelihood.weights[[2, 0]], likelihood.select_images(lambda v: v[[2, 0]]).weights)
    assert torch.equal(likelihood.weights[1:], likelihood[1:].weights)
