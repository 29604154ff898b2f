"""Photographs' Gaussian: a world in which prior and posterior are exact, on images of 32 x 32 pixels in RGB.

A Gaussian is fitted to crops of photographs, and all images are drawn from it. It is diagonal after a colour and a
cosine transform, so its diffusion prior is exact and cheap, and the posterior mean of every linear measurement is
known. What separates a method from it is the method alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from deft_ct.datasets.images import PhotoCrops
from deft_ct.diffusion import Prior
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
from deft_ct.operators.image.transforms import dct_matrix
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


class TransformedGaussian(nn.Module):
    """Exact noise prediction for a Gaussian whose values are independent after a colour and a cosine transform.

    Args:
        mean: ``SHAPE``.
        colours: ``(3, 3)``, orthogonal; its columns are the colour basis.
        variances: ``SHAPE``, of the coefficients.
    """

    mean: Tensor
    colours: Tensor
    variances: Tensor
    cosines: Tensor

    def __init__(self, mean: Tensor, colours: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.schedule = Schedule()
        for name, value in (
            ("mean", mean), ("colours", colours), ("variances", variances), ("cosines", dct_matrix(mean.shape[-1]))
        ):  # fmt: skip
            self.register_buffer(name, value.double())

    def coefficients(self, x: Tensor) -> Tensor:
        """Of centred images ``(B, *SHAPE)``."""
        cosines, colours = self.cosines.to(x), self.colours.to(x)
        return cosines @ torch.einsum("dc,bdhw->bchw", colours, x) @ cosines.T

    def images(self, coefficients: Tensor) -> Tensor:
        """The inverse of :meth:`coefficients`."""
        cosines, colours = self.cosines.to(coefficients), self.colours.to(coefficients)
        return torch.einsum("dc,bchw->bdhw", colours, cosines.T @ coefficients @ cosines)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """``sqrt(1 - a) (a S + 1 - a)^-1 (x - sqrt(a) m)`` at the times ``t`` ``(B,)``."""
        a = self.schedule.alpha_bar(t).to(x)[:, None, None, None]
        scaled = self.coefficients(x - a.sqrt() * self.mean.to(x)) / (a * self.variances.to(x) + 1 - a)
        return (1 - a).sqrt() * self.images(scaled)


@dataclass(frozen=True)
class PhotographGaussian:
    """The Gaussian.

    Attributes:
        network: its exact noise prediction.
    """

    network: TransformedGaussian

    @classmethod
    def fit(cls, path: Path) -> PhotographGaussian:
        """Fit to the quarters of the training crops of a file, and to their mirror images.

        Of all Gaussians whose covariance the principal colours and the cosine transform make diagonal, it is the one of
        largest likelihood.

        Args:
            path: file of crops of 64 x 64 pixels.
        """
        crops = PhotoCrops(path, "train")
        images = torch.stack([crops[n] for n in range(len(crops))]).double()
        parts = images.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE).permute(0, 2, 3, 1, 4, 5).reshape(-1, *SHAPE)
        parts = torch.cat([parts, parts.flip(-1)])
        mean = parts.mean(0)
        centred = parts - mean
        _, colours = torch.linalg.eigh(torch.cov(centred.transpose(0, 1).flatten(1), correction=0))
        network = TransformedGaussian(mean, colours, torch.ones(SHAPE))
        network.variances = network.coefficients(centred).square().mean(0) + FLOOR
        return cls(network)

    def prior(self) -> Prior:
        """The exact prior."""
        return Prior(self.network, self.network.schedule, image_shape=SHAPE)

    def images(self, normal: Tensor) -> Tensor:
        """Images of the Gaussian from independent normal values, both ``(B, *SHAPE)``; computed in float64."""
        network = self.network
        return (network.mean + network.images(network.variances.sqrt() * normal.double())).float()

    def draw(self, count: int, seed: int) -> Tensor:
        """``(count, *SHAPE)`` images of the Gaussian."""
        return self.images(torch.randn(count, *SHAPE, generator=_seeded(seed), dtype=torch.float64))

    def posterior_means(self, measurement: Measurement, sigma: float, y: Tensor) -> Tensor:
        """``E[x | y]`` of a linear measurement with white noise, exact."""
        unit = torch.eye(SHAPE[0] * SIDE**2, dtype=torch.float64).reshape(-1, *SHAPE)
        matrix = measurement.operator(unit).flatten(1).T
        cov = self.network.images(self.network.variances * self.network.coefficients(unit)).flatten(1)
        seen, mean = matrix @ cov, self.network.mean.flatten()
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
        self.world, self.count, self.first = world, count, first

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor) -> Tensor:
        """``(B, *SHAPE)`` float32."""
        return self.world.images(
            torch.stack([torch.randn(SHAPE, generator=_seeded(self.first + int(n))) for n in indices])
        )

    def digest(self) -> str:
        """SHA-256 of what the images follow from."""
        network = self.world.network
        return content_digest(
            [network.mean, network.colours, network.variances, torch.tensor([self.count, self.first])]
        )


class GaussianPairs(PairSource):
    """Training pairs of :class:`GaussianImages`, which are named by the Gaussian instead of all their pixels."""

    source: GaussianImages

    @property
    def _images(self) -> str:
        return self.source.digest()
