"""The quadratic data term that guided methods share, in the range of the prior."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.slice_coupling import SliceCoupling
from deft_ct.operators.differences import difference_scales
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.noise import NoNoise
from deft_ct.operators.solvers import conjugate_gradient


class DataTerm:
    """``|y - A(x)|_W^2 / (2 sigma^2)`` for images ``x`` in the prior's range, with ``mean(W) = 1`` for each sample.

    The split of the inverse variances into relative weights ``W`` and one ``sigma`` for each sample lets the
    parameters of a method keep their meaning with and without weights. In the same spirit :attr:`norm` is the norm
    of the operator as the prior sees it: step sizes are given for an operator of norm 1 and divided by it.

    Args:
        likelihood: the measurement with its data.
        weighted: True takes the statistical weights of the noise model; False takes white noise of the same mean
            variance, the mismatched model that most of the literature uses on Poisson data.
        coupling: weight of the total variation along z of volumes, per unit of the prior's range: a term
            ``coupling * TV_z(x)`` beside the data term, see :mod:`~deft_ct.measurement.slice_coupling`. Not used for
            images.
        noise_free: standard deviation that noise-free data are given, for an operator of norm 1 and images in
            [-1, 1].
    """

    def __init__(
        self, likelihood: Likelihood, *, weighted: bool = False, coupling: float = 0.0, noise_free: float = 1e-3
    ) -> None:
        self.likelihood = likelihood
        self._coupling = coupling
        y, scale = likelihood.y, likelihood.to_physical.scale
        steepness = scale.abs().flatten() if isinstance(scale, Tensor) else y.new_full((len(y),), abs(scale))
        operator = likelihood.operator
        self.norm = steepness.to(y) * y.new_tensor(operator.norms())
        """``(B,)``: norm of the operator on the prior's range, of its derivative for a nonlinear one."""
        self._mean_is_clean = likelihood.noise.mean(y) is y  # false for data before the logarithm
        self.exact = isinstance(likelihood.noise, NoNoise)
        """Whether the data are noise-free."""
        inverse_variance = likelihood.weights
        if self.exact:
            self.sigma = noise_free * self.norm
            self.weights = torch.ones_like(y)
        elif weighted:
            mean = inverse_variance.flatten(1).mean(1)
            self.sigma = mean.rsqrt()
            self.weights = inverse_variance / per_sample(mean, y)
        else:
            self.sigma = inverse_variance.reciprocal().flatten(1).mean(1).sqrt()
            self.weights = torch.ones_like(y)

    def residual(self, x: Tensor) -> Tensor:
        """``y - E[y | x]``, of the shape of the data."""
        return self.likelihood.residual(x)

    def pull_back(self, x: Tensor, v: Tensor) -> Tensor:
        """``J(x)^T v``, with ``J`` the derivative of the expected data by the image in the prior's range."""
        physical, operator = self.likelihood.to_physical(x), self.likelihood.operator
        if not self._mean_is_clean:
            clean = operator(physical)
            with torch.enable_grad():
                point = clean.detach().requires_grad_()
                (v,) = torch.autograd.grad(self.likelihood.noise.mean(point), point, v)
        return operator.vjp(physical, v) * self.likelihood.to_physical.scale

    def descent(self, x: Tensor) -> Tensor:
        """``J(x)^T W (y - E[y | x])``: ``sigma^2`` times the score of the data term, of the shape of ``x``."""
        return self.pull_back(x, self.weights * self.residual(x))

    def normal(self, x: Tensor) -> Tensor:
        """``B^T W B x`` of the linear part ``B`` of the operator, of the shape of ``x``."""
        scale, operator = self.likelihood.to_physical.scale, self.likelihood.operator
        assert isinstance(operator, LinearOperator)
        return scale * operator.adjoint(self.weights * operator(scale * x))

    def solve(
        self, rhs: Tensor, damping: Tensor, *, iterations: int, tolerance: float = 1e-4,
        preconditioner: Callable[[Tensor], Tensor] | None = None, coupling: SliceCoupling | None = None,
    ) -> Tensor:  # fmt: skip
        """``(B^T W B + damping + C)^-1 rhs`` by conjugate gradients from zero.

        Args:
            rhs: ``(B, C, H, W)``.
            damping: ``(B,)``, not negative.
            iterations: most iterations; with no damping, stopping early is the regularisation.
            tolerance: relative residual at which a sample stops.
            preconditioner: see :func:`~deft_ct.operators.solvers.conjugate_gradient`.
            coupling: ``C``, of :meth:`coupling_at`; zero when left out.
        """
        strength = per_sample(damping, rhs)

        def matrix(x: Tensor) -> Tensor:
            out = self.normal(x) + strength * x
            return out if coupling is None else out + coupling(x)

        solution, _ = conjugate_gradient(
            matrix, rhs, iterations=iterations, tolerance=tolerance, preconditioner=preconditioner
        )
        return solution

    def coupling_at(self, x: Tensor) -> SliceCoupling | None:
        """``sigma^2`` times the Hessian of the coupling of the slices at volumes ``x``; None for images."""
        operator = self.likelihood.operator
        if not self._coupling or not operator.on_volumes:
            return None
        scales = difference_scales(operator)
        assert scales is not None
        return SliceCoupling(x, self._coupling * self.sigma.square(), scales[0])

    def correction(
        self, x: Tensor, damping: Tensor, *, iterations: int, preconditioner: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """The ``d`` that minimises ``|y - A(x + d)|_W^2 + damping |d|^2``: the proximal step from ``x``.

        For volumes with ``2 sigma^2 coupling TV_z(x + d)`` in addition, the total variation majorised at ``x``.
        """
        coupling = self.coupling_at(x)
        rhs = self.descent(x) if coupling is None else self.descent(x) - coupling(x)
        return self.solve(rhs, damping, iterations=iterations, preconditioner=preconditioner, coupling=coupling)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` values shaped to broadcast over ``like`` ``(B, ...)``."""
    return values.to(like).reshape(-1, *(1,) * (like.ndim - 1))
