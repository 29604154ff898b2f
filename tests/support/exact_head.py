"""DEFT with the exact h-transform of a Gaussian prior, a linear operator and Gaussian noise, for any data."""

from __future__ import annotations

import torch
from gaussian import Gaussian, MatrixOperator, gaussian_prior, smooth_gaussian
from torch import Tensor

from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import Condition, HTransform, HTransformConfig
from deft_ct.methods.deft.guidance import Guidance
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.networks import UNetConfig
from deft_ct.operators.noise import GaussianNoise

SIDE, PIXELS, ROWS, SIGMA = 4, 16, 6, 0.2


class Gradient(Guidance):
    """The gradient of the log likelihood as it is."""

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """See :class:`Guidance`."""
        return likelihood.score(x0)


class ExactHead(HTransform):
    """``h = G^T (A^T A C + sigma^2 I)^-1 sigma^2 g`` with the score ``g = A^T (y - A x0h) / sigma^2``.

    By the push-through identity this is ``G^T A^T (A C A^T + sigma^2 I)^-1 (y - A x0h)``, the closed form.
    """

    def __init__(self, gaussian: Gaussian, matrix: Tensor, sigma: float, schedule: Schedule) -> None:
        network = UNetConfig(patch=1, channels=(32,), attention=(False,))
        super().__init__(HTransformConfig(reference="none", guidance="score", network=network), schedule)
        self.guidance = Gradient()
        self.gaussian, self.matrix, self.sigma = gaussian, matrix, sigma

    def forward(
        self, x_t: Tensor, t: Tensor, x0: Tensor, eps: Tensor, guidance: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        a = float(self.schedule.alpha_bar(t)[0])
        cov, eye = self.gaussian.cov, torch.eye(len(self.gaussian.mean), dtype=torch.float64)
        jacobian = a**0.5 * cov @ torch.linalg.inv(a * cov + (1 - a) * eye)
        left = cov - a**0.5 * jacobian @ cov  # Cov(x_0 | x_t)
        system = self.matrix.T @ self.matrix @ left + self.sigma**2 * eye
        gain = self.sigma**2 * jacobian.T @ torch.linalg.inv(system)
        h = (guidance.flatten(1).double() @ gain.T).reshape(x_t.shape).to(x_t.dtype)
        return x0 + (1 - a) / a**0.5 * h, eps - (1 - a) ** 0.5 * h


def world(seed: int = 1) -> tuple[Gaussian, Tensor, Measurement]:
    """Prior, matrix and measurement."""
    matrix = torch.randn(ROWS, PIXELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 4
    return smooth_gaussian(SIDE), matrix, Measurement(MatrixOperator(matrix, SIDE), GaussianNoise(SIGMA))


def exact_deft(config: DEFTConfig | None = None) -> DEFT:
    """DEFT in this world."""
    gaussian, matrix, _ = world()
    schedule = Schedule()
    head = ExactHead(gaussian, matrix, SIGMA, schedule)
    return DEFT(gaussian_prior(gaussian, SIDE, schedule), head, config)


def known_images(count: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Images of the prior ``(n, 1, SIDE, SIDE)`` with their data, float64."""
    gaussian, _, measurement = world()
    x = gaussian.draw(count, seed).reshape(count, 1, SIDE, SIDE)
    return x, measurement.simulate(x, seed=seed)
