"""The data term of guided methods: its derivative, and what it costs."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_scan, tiny_slices
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.operators import HDR, GaussianNoise, Identity, Inpainting, NoiseModel, NoNoise, PoissonNoise
from deft_ct.operators.linear import LinearOperator


class Counted(LinearOperator):
    """Another operator, counting its products."""

    def __init__(self, base: LinearOperator) -> None:
        super().__init__(base.domain_shape, base.range_shape)
        self.base, self.forwards, self.adjoints = base, 0, 0

    def _forward_kernel(self, x: Tensor) -> Tensor:
        self.forwards += 1
        return self.base(x)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        self.adjoints += 1
        return self.base.adjoint(y)


@pytest.mark.parametrize(
    ("noise", "forwards"),
    [
        (NoNoise(), 0),
        (GaussianNoise(0.1), 0),
        (PoissonNoise(photons=1e4), 0),
        (PoissonNoise(photons=1e4, post_log=False), 1),
    ],
)
def test_pull_back_is_the_derivative_without_needless_projections(noise: NoiseModel, forwards: int):
    operator = Counted(tiny_scan().operator)
    measurement = Measurement(operator, noise, units=HounsfieldScale())
    likelihood = measurement.likelihood(measurement.simulate(tiny_slices(2), seed=1).double(), PriorRange())
    term = DataTerm(likelihood)
    x = PriorRange().to_prior(HounsfieldScale().to_hu(tiny_slices(2))).double().requires_grad_()
    v = torch.rand(likelihood.y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (expected,) = torch.autograd.grad(noise.mean(likelihood.forward(x)), x, v)
    operator.forwards = operator.adjoints = 0
    torch.testing.assert_close(term.pull_back(x.detach(), v), expected, rtol=1e-12, atol=1e-12)
    assert (operator.forwards, operator.adjoints) == (forwards, 1)
    operator.forwards = operator.adjoints = 0
    term.descent(x.detach())
    assert (operator.forwards, operator.adjoints) == (forwards + 1, 1)


def test_norms_are_those_of_each_image() -> None:
    masks = torch.ones(2, 1, 4, 4)
    operator = 3 * (
        (2 * Identity((1, 4, 4))) @ Inpainting((1, 4, 4), masks * torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1))
    )
    term = DataTerm(Measurement(operator, NoNoise()).likelihood(torch.zeros(2, 1, 4, 4)))
    torch.testing.assert_close(term.norm, torch.tensor([6.0, 0.0]))
    assert operator.norm() == pytest.approx(6.0)


def test_pull_back_of_a_nonlinear_operator():
    measurement = Measurement(HDR((3, 4, 4)), GaussianNoise(0.1))
    x = torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    term = DataTerm(measurement.likelihood(measurement.simulate(x)))
    v = torch.rand_like(x)
    point = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(measurement.operator(point), point, v)
    torch.testing.assert_close(term.pull_back(x, v), expected)
