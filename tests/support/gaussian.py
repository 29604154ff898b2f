"""A Gaussian world in which everything is known in closed form: prior N(m, S), data y = A x + sigma n."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.operators.linear import LinearOperator


class MatrixOperator(LinearOperator):
    """A dense matrix on images of shape (1, side, side)."""

    def __init__(self, matrix: Tensor, side: int) -> None:
        super().__init__((1, side, side), (1, 1, matrix.shape[0]))
        self.register_buffer("matrix", matrix)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.T.to(x.dtype)).reshape(-1, *self.range_shape)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.matrix.to(y.dtype)).reshape(-1, *self.domain_shape)


@dataclass(frozen=True)
class Gaussian:
    """N(mean, cov) on vectors, float64."""

    mean: Tensor
    cov: Tensor

    def eps(self, x_t: Tensor, abar: Tensor) -> Tensor:
        """Exact noise prediction, ``(B, n)``; ``sqrt(1-a) (a S + (1-a) I)^-1 (x_t - sqrt(a) m)``."""
        a = abar.reshape(-1, 1)
        values, vectors = torch.linalg.eigh(self.cov)
        centred = (x_t - a.sqrt() * self.mean) @ vectors
        return (1 - a).sqrt() * (centred / (a * values + 1 - a)) @ vectors.T

    def posterior(self, matrix: Tensor, sigma: float, y: Tensor) -> Gaussian:
        """The posterior given one measurement ``y`` of shape (m,)."""
        gain = (
            self.cov
            @ matrix.T
            @ torch.linalg.inv(matrix @ self.cov @ matrix.T + sigma**2 * torch.eye(len(matrix)).double())
        )
        return Gaussian(self.mean + gain @ (y - matrix @ self.mean), self.cov - gain @ matrix @ self.cov)

    def draw(self, count: int, seed: int) -> Tensor:
        """``(count, n)`` draws."""
        noise = torch.randn(count, len(self.mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return self.mean + noise @ torch.linalg.cholesky(self.cov).T


class GaussianNetwork(nn.Module):
    """The exact noise prediction of a Gaussian as the network of a prior, on images (1, side, side)."""

    def __init__(self, gaussian: Gaussian, schedule: Schedule) -> None:
        super().__init__()
        self.gaussian, self.schedule = gaussian, schedule

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.gaussian.eps(x.flatten(1).double(), self.schedule.alpha_bar(t)).reshape(x.shape).to(x.dtype)


def smooth_gaussian(side: int) -> Gaussian:
    """A smooth random field with a bright centre, of spread 0.5: like a blurred image in [-1, 1]."""
    axis = torch.arange(side, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    cov = 0.25 * torch.exp(-0.5 * (torch.cdist(points, points) / 1.5) ** 2) + 0.01 * torch.eye(side * side).double()
    mean = 0.4 * torch.exp(-((points - (side - 1) / 2) ** 2).sum(1) / side)
    return Gaussian(mean, cov)


def gaussian_prior(gaussian: Gaussian, side: int, schedule: Schedule | None = None) -> Prior:
    """A prior whose network is exact."""
    schedule = schedule or Schedule()
    return Prior(GaussianNetwork(gaussian, schedule), schedule, prediction="epsilon", image_shape=(1, side, side))
