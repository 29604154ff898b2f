"""The mixture of Gaussians against automatic differentiation, closed forms and sums over a grid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deft_ct.diffusion.gaussian_mixture import FLOOR, SHRINKAGE, GaussianMixture
from deft_ct.diffusion.schedule import Schedule


def _mixture() -> GaussianMixture:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 4, 4, generator=generator)
    covs = root @ root.mT + 0.1 * torch.eye(4)
    means = 2 * torch.randn(3, 4, generator=generator)
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), means, covs, Schedule())


def _log_density(mixture: GaussianMixture, x: Tensor, alpha_bar: float) -> Tensor:
    """Of the noised mixture, by torch's own distributions."""
    parts = torch.distributions.MultivariateNormal(
        alpha_bar**0.5 * mixture.means.double(), alpha_bar * mixture.covs.double() + (1 - alpha_bar) * torch.eye(4)
    )
    weights = torch.distributions.Categorical(probs=mixture.weights.double())
    found: Tensor = torch.distributions.MixtureSameFamily(weights, parts).log_prob(x)
    return found


@pytest.mark.parametrize("step", [3, 400, 990])
def test_the_noise_is_minus_the_scaled_score(step: int) -> None:
    mixture = _mixture()
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    alpha_bar = float(mixture.schedule.alpha_bar(torch.tensor(step)))
    flat = x.flatten(1).double().requires_grad_()
    (score,) = torch.autograd.grad(_log_density(mixture, flat, alpha_bar).sum(), flat)
    expected = -((1 - alpha_bar) ** 0.5) * score
    found = mixture(x, torch.full((5,), step))
    assert found.shape == x.shape
    torch.testing.assert_close(found.flatten(1).double(), expected, rtol=2e-3, atol=2e-4)


def test_the_posterior_mean_of_one_component_is_the_kalman_update() -> None:
    whole = _mixture()
    mixture = GaussianMixture(torch.ones(1), whole.means[:1], whole.covs[:1], Schedule())
    matrix = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    offset, y = torch.tensor([0.5, -1.0]).double(), torch.tensor([[1.0, 2.0], [0.0, -3.0]])
    mean, cov = mixture.means[0].double(), mixture.covs[0].double()
    precision = torch.linalg.inv(cov) + matrix.T @ matrix / 0.3**2
    expected = torch.linalg.solve(
        precision, (torch.linalg.solve(cov, mean) + (y.double() - offset) @ matrix / 0.09).T
    ).T
    torch.testing.assert_close(mixture.posterior_means(matrix, offset, 0.3, y), expected)


def test_the_posterior_mean_of_a_mixture_is_a_weighted_sum_over_a_grid() -> None:
    mixture = GaussianMixture(
        torch.tensor([0.4, 0.6]), torch.tensor([[-1.0], [2.0]]), torch.tensor([[[0.2]], [[0.5]]]), Schedule()
    )
    grid = torch.linspace(-8, 10, 40001, dtype=torch.float64)
    parts = torch.distributions.Normal(mixture.means[:, 0].double(), mixture.covs[:, 0, 0].double().sqrt())
    prior = (mixture.weights.double() * parts.log_prob(grid[:, None]).exp()).sum(1)
    for value in (-2.0, 0.6, 5.0):
        weight = prior * torch.exp(-0.5 * ((value - (1.5 * grid + 0.25)) / 0.7) ** 2)
        expected = (weight * grid).sum() / weight.sum()
        found = mixture.posterior_means(
            torch.tensor([[1.5]]).double(), torch.tensor([0.25]).double(), 0.7, torch.tensor([[value]])
        )
        assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_fitting_finds_separated_clusters() -> None:
    generator = torch.Generator().manual_seed(3)
    near = torch.randn(60, 1, 1, 2, generator=generator) * 0.1
    far = torch.randn(40, 1, 1, 2, generator=generator) * 0.3 + 5
    found = GaussianMixture.fit(torch.cat([near, far]), Schedule(), components=2, seed=0)
    order = found.means[:, 0].argsort()
    torch.testing.assert_close(found.weights[order], torch.tensor([0.6, 0.4]))
    torch.testing.assert_close(found.means[order], torch.stack([near.flatten(1).mean(0), far.flatten(1).mean(0)]))
    own = [torch.cov(part.flatten(1).T, correction=0) for part in (near, far)]
    pooled = 0.6 * own[0] + 0.4 * own[1]
    expected = [(1 - SHRINKAGE) * cov + SHRINKAGE * pooled + FLOOR * torch.eye(2) for cov in own]
    torch.testing.assert_close(found.covs[order], torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_a_cluster_of_one_image_is_dropped() -> None:
    images = torch.cat(
        [torch.randn(30, 1, 1, 2, generator=torch.Generator().manual_seed(4)), torch.full((1, 1, 1, 2), 99.0)]
    )
    found = GaussianMixture.fit(images, Schedule(), components=2, seed=0)
    assert len(found.weights) == 1 and float(found.weights) == pytest.approx(30 / 31)
