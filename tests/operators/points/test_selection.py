"""Selection of points: adjoint, pseudo-inverse, decomposition and refusals."""

from __future__ import annotations

import pytest
import torch

from deft_ct.measurement import Measurement
from deft_ct.operators import Decomposable, GaussianNoise, Selection
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients, assert_linear

INDICES = [4, 0, 5]


def test_it_takes_rows_in_the_order_of_the_indices():
    x = torch.rand(2, 7, 3)
    assert torch.equal(Selection(7, INDICES)(x), x[:, INDICES])
    assert torch.equal(Selection(7, torch.tensor(INDICES, dtype=torch.int32)) @ x, x[:, INDICES])


def test_adjoint_and_derivatives():
    operator = Selection(7, INDICES)
    assert_adjoint(operator)
    assert_linear(operator)
    assert_gradients(operator)
    assert_batch_invariant(operator)


def test_pseudo_inverse_is_that_of_the_matrix():
    operator = Selection(7, INDICES)
    matrix = operator(torch.eye(21).reshape(21, 7, 3)).reshape(21, 9).T
    y = torch.rand(4, 3, 3)
    expected = (torch.linalg.pinv(matrix) @ y.flatten(1).T).T.reshape(4, 7, 3)
    torch.testing.assert_close(operator.pseudo_inverse(y), expected)
    torch.testing.assert_close(operator.svd().pseudo_inverse(y), expected)


@pytest.mark.parametrize("factor", [1.0, -3.0])
def test_decomposition(factor):
    operator = factor * Selection(7, INDICES)
    assert isinstance(operator, Decomposable)
    svd, x, y = operator.svd(), torch.rand(2, 7, 3), torch.rand(2, 3, 3)
    assert svd.spectral_shape == (7, 3)
    torch.testing.assert_close(svd.data_from_spectral(svd.singular_values * svd.to_spectral(x)), operator(x))
    torch.testing.assert_close(svd.from_spectral(svd.singular_values * svd.data_to_spectral(y)), operator.adjoint(y))


def test_a_measurement_of_points():
    measurement = Measurement(Selection(7, INDICES), GaussianNoise(0.1))
    y = measurement.simulate(torch.rand(2, 7, 3), seed=1)
    assert y.shape == (2, 3, 3)
    measurement.check(y)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], ValueError, "indices are empty"),
        ([0, 7], ValueError, r"in 0 \.\.\. 6, got 7"),
        ([-1], ValueError, r"in 0 \.\.\. 6, got -1"),
        ([3, 1, 3], ValueError, "3 occurs twice"),
        ([[1, 2]], ValueError, "one-dimensional"),
        ([0.5], TypeError, "must be integers"),
        (torch.ones(7, dtype=torch.bool), TypeError, "must be integers, got torch.bool"),
    ],
)
def test_bad_indices_are_refused(indices, error, message):
    with pytest.raises(error, match=message):
        Selection(7, indices)
