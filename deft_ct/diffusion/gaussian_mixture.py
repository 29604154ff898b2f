"""A mixture of Gaussians as the network of a prior: its score is exact, and so are posterior means of linear data."""

from __future__ import annotations

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from deft_ct.diffusion.schedule import Schedule

SHRINKAGE = 0.2
"""Share of the pooled covariance in the covariance of each component."""
FLOOR = 1e-3
"""Variance that is added to every pixel."""


class GaussianMixture(nn.Module):
    """Exact noise prediction for images whose distribution is a mixture of K Gaussians.

    Args:
        weights: ``(K,)``, positive, of sum 1.
        means: ``(K, n)`` of flattened images with n values.
        covs: ``(K, n, n)``.
        schedule: of the diffusion.
    """

    weights: Tensor
    means: Tensor
    covs: Tensor
    values: Tensor
    vectors: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        values, vectors = torch.linalg.eigh(covs)
        for name, value in (("weights", weights), ("means", means), ("values", values), ("vectors", vectors)):
            self.register_buffer(name, value.float())
        self.register_buffer("covs", covs.float())

    @classmethod
    def fit(cls, images: Tensor, schedule: Schedule, *, components: int = 8, seed: int = 0) -> GaussianMixture:
        """Cluster images by k-means and take mean and covariance of each cluster.

        Args:
            images: ``(N, ...)``.
            schedule: of the diffusion.
            components: number of clusters; clusters of a single image are dropped.
            seed: of k-means.
        """
        flat = images.flatten(1).double()
        _, labels = kmeans2(flat.numpy(), components, minit="++", seed=seed)
        chosen = [flat[labels == k] for k in range(components) if (labels == k).sum() > 1]
        pooled = sum((len(c) * torch.cov(c.T, correction=0) for c in chosen), torch.zeros(1)) / len(flat)
        floor = FLOOR * torch.eye(flat.shape[1]).double()
        covs = [(1 - SHRINKAGE) * torch.cov(c.T, correction=0) + SHRINKAGE * pooled + floor for c in chosen]
        weights = torch.tensor([len(c) / len(flat) for c in chosen], dtype=torch.float64)
        return cls(weights, torch.stack([c.mean(0) for c in chosen]), torch.stack(covs), schedule)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The expected noise in ``x``, of the shape of ``x``, at the times ``t`` ``(B,)``."""
        a = self.schedule.alpha_bar(t).to(x)[:, None, None]
        variance = a * self.values + (1 - a)  # (B, K, n)
        turned = torch.einsum("bkn,knm->bkm", x.flatten(1)[:, None] - a.sqrt() * self.means, self.vectors)
        log_share = self.weights.log() - 0.5 * (turned.square() / variance + variance.log()).sum(2)
        share = log_share.softmax(1)[:, :, None]
        eps = torch.einsum("bkm,knm->bn", share * turned / variance, self.vectors)
        return ((1 - a[:, 0]).sqrt() * eps).reshape(x.shape)

    def posterior_means(self, matrix: Tensor, offset: Tensor, sigma: float, y: Tensor) -> Tensor:
        """``E[x | y]`` for ``y = matrix x + offset + sigma n`` with standard normal ``n``.

        Args:
            matrix: ``(m, n)``, float64.
            offset: ``(m,)``, float64.
            sigma: standard deviation of the noise.
            y: ``(B, m)``.

        Returns:
            ``(B, n)``, float64.
        """
        y, noise = y.double() - offset, sigma**2 * torch.eye(len(matrix)).double()
        log_share, means = [], []
        for weight, mean, cov in zip(self.weights.double(), self.means.double(), self.covs.double(), strict=True):
            predicted = matrix @ cov @ matrix.T + noise
            law = torch.distributions.MultivariateNormal(matrix @ mean, predicted)
            log_share.append(weight.log() + law.log_prob(y))
            means.append(mean + torch.linalg.solve(predicted, (y - matrix @ mean).T).T @ matrix @ cov)
        share = torch.stack(log_share, 1).softmax(1)
        return (share[:, :, None] * torch.stack(means, 1)).sum(1)
