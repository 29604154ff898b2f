from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deft_ct.operators.base import Operator
from deft_ct.operators.linear import LinearOperator
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients, assert_linear


def _rows_times(x: Tensor, matrix: Tensor) -> Tensor:
    """``x @ matrix``; a dense product would sum in another order for another number of rows on some processors."""
    return (x[..., None] * matrix).sum(-2)


class Dense(LinearOperator):
    """A matrix, with a fault on request."""

    def __init__(self, fault: str = "") -> None:
        super().__init__((4,), (3,))
        self.matrix = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.fault = fault

    def _forward_kernel(self, x: Tensor) -> Tensor:
        y = _rows_times(x, self.matrix.to(x).T)
        if self.fault == "batch":
            y = y * (1 + 1e-3 * (len(x) > 1))
        return y + (1e-3 if self.fault == "affine" else 0)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return _rows_times(y, self.matrix.to(y)) * (1 + {"adjoint": 1e-4, "steep": 0.05}.get(self.fault, 0))


class Cut(Operator):
    """An operator whose graph is cut."""

    def __init__(self) -> None:
        super().__init__((4,), (4,))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return x.detach() ** 2 + 0 * x


def test_a_good_operator_passes():
    op = Dense()
    assert assert_adjoint(op) < 1e-14
    assert assert_adjoint(op, dtype=torch.float32) < 1e-6
    assert assert_linear(op) < 1e-14
    assert_gradients(op)
    assert_batch_invariant(Dense())


@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [
        ("adjoint", assert_adjoint, "but <x, A\\^T y>"),
        ("affine", assert_linear, "operator is not linear"),
        ("steep", assert_gradients, "gradient check"),
        ("batch", assert_batch_invariant, "member 0 of a batch"),
    ],
)
def test_faults_are_found(fault, check, message):
    with pytest.raises(AssertionError, match=message):
        check(Dense(fault))


def test_a_cut_graph_is_found():
    with pytest.raises(AssertionError, match="gradient check"):
        assert_gradients(Cut(), forward_mode=False)
