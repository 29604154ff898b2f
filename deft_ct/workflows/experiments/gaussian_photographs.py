"""Photographs' Gaussian: a world in which prior and posterior are exact, on images of 32 x 32 pixels in RGB.

A Gaussian is fitted to crops of photographs, and all images are drawn from it. The noise prediction of its prior is
exact, and so is the posterior mean of every linear measurement. What separates a method from it is the method alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deft_ct.datasets.images import PhotoCrops
from deft_ct.diffusion import Prior
from deft_ct.diffusion.gaussian_mixture import GaussianMixture
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import (
    Blur,
    Colorization,
    CompressedSensing,
    GaussianBlur,
    GaussianNoise,
    Identity,
    Inpainting,
    LinearOperator,
    MotionBlur,
    SuperResolution,
)
from deft_ct.operators.image.blur_kernels import gaussian_taps
from deft_ct.operators.image.masks import box_mask, random_mask
from deft_ct.runtime.content_key import content_digest
from deft_ct.training.pairs import PairSource

SIDE = 32
SHAPE = (3, SIDE, SIDE)
FLOOR = 1e-4
"""Variance that is added to every value of a pixel; the images lie in [-1, 1]."""


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _circular_blur() -> LinearOperator:
    taps = gaussian_taps(15, 2.0, truncate=4.0)
    return Blur(SHAPE, taps[:, None] * taps, boundary="circular")


LINEAR_TASKS: dict[str, Callable[[], LinearOperator]] = {
    "denoise": lambda: Identity(SHAPE),
    "inpaint_random": lambda: Inpainting(SHAPE, random_mask(SHAPE[1:], 0.7, _seeded())),
    "inpaint_box": lambda: Inpainting(SHAPE, box_mask(SHAPE[1:], (16, 16))),
    "sr4": lambda: SuperResolution(SHAPE, 4),
    "sr4_bicubic": lambda: SuperResolution(SHAPE, 4, "bicubic"),
    "blur": lambda: GaussianBlur(SHAPE, 15, 2.0),
    "blur_circular": _circular_blur,
    "motion": lambda: MotionBlur(SHAPE, _seeded(), 15, 0.5),
    "colorize": lambda: Colorization(SHAPE, "mean"),
    "compressed": lambda: CompressedSensing(SHAPE, 0.25, _seeded()),
}
"""Linear tasks by name."""
SIGMA = {"denoise": 0.2}
"""Standard deviation of the noise where it is not :data:`COMMON_SIGMA`."""
COMMON_SIGMA = 0.05


def linear_task(name: str) -> Measurement:
    """The measurement of a task of :data:`LINEAR_TASKS`."""
    return Measurement(LINEAR_TASKS[name](), GaussianNoise(SIGMA.get(name, COMMON_SIGMA)))


@dataclass(frozen=True)
class PhotographGaussian:
    """A Gaussian with its exact noise prediction.

    Attributes:
        network: the exact noise prediction.
    """

    network: GaussianMixture

    @classmethod
    def fit(cls, path: Path) -> PhotographGaussian:
        """Fit to the quarters of the training crops of a file, and to their mirror images.

        Args:
            path: file of crops of 64 x 64 pixels.
        """
        crops = PhotoCrops(path, "train")
        images = torch.stack([crops[n] for n in range(len(crops))])
        quarters = images.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE).permute(0, 2, 3, 1, 4, 5).reshape(-1, *SHAPE)
        flat = torch.cat([quarters, quarters.flip(-1)]).flatten(1).double()
        cov = torch.cov(flat.T, correction=0) + FLOOR * torch.eye(flat.shape[1]).double()
        return cls(GaussianMixture(torch.ones(1).double(), flat.mean(0)[None], cov[None], Schedule()))

    def prior(self) -> Prior:
        """The exact prior."""
        return Prior(self.network, self.network.schedule, image_shape=SHAPE)

    def draw(self, count: int, seed: int) -> Tensor:
        """``(count, *SHAPE)`` images of the Gaussian."""
        normal = torch.randn(count, self.network.means.shape[1], generator=_seeded(seed), dtype=torch.float64)
        spread = self.network.vectors[0].double() * self.network.values[0].double().clamp_min(0).sqrt()
        return (self.network.means[0].double() + normal @ spread.T).reshape(count, *SHAPE).float()

    def posterior_means(self, measurement: Measurement, sigma: float, y: Tensor) -> Tensor:
        """``E[x | y]`` of a linear measurement with white noise, exact."""
        unit = torch.eye(SHAPE[0] * SIDE**2, dtype=torch.float64).reshape(-1, *SHAPE)
        matrix = measurement.operator(unit).flatten(1).T
        cov, mean = self.network.covs[0].double(), self.network.means[0].double()
        seen = matrix @ cov
        gram = seen @ matrix.T + sigma**2 * torch.eye(len(matrix)).double()
        innovation = y.flatten(1).double() - mean @ matrix.T
        return (mean + torch.linalg.solve(gram, innovation.T).T @ seen).reshape(-1, *SHAPE).float()


class GaussianImages:
    """Training images that are drawn when they are asked for, image ``n`` from the seed ``first + n``.

    Args:
        world: the Gaussian.
        count: how many.
        first: seed of the first image.
    """

    def __init__(self, world: PhotographGaussian, count: int, first: int) -> None:
        self.count, self.first = count, first
        self._mean = world.network.means[0]
        self._spread = world.network.vectors[0] * world.network.values[0].clamp_min(0).sqrt()

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor) -> Tensor:
        """``(B, *SHAPE)`` float32."""
        rows = [torch.randn(len(self._mean), generator=_seeded(self.first + int(n))) for n in indices]
        return (self._mean + torch.stack(rows) @ self._spread.T).reshape(-1, *SHAPE)

    def digest(self) -> str:
        """SHA-256 of what the images follow from."""
        return content_digest([self._mean, self._spread, torch.tensor([self.count, self.first])])


class GaussianPairs(PairSource):
    """Training pairs of :class:`GaussianImages`, which are named by the Gaussian instead of all their pixels."""

    source: GaussianImages

    @property
    def _images(self) -> str:
        return self.source.digest()
