"""A small CT problem whose posterior is known: slices of 16 x 16 pixels and a prior with an exact score."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.packs import read_pack
from deft_ct.diffusion import Prior
from deft_ct.diffusion.gaussian_mixture import GaussianMixture
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import HTransformConfig
from deft_ct.networks import UNetConfig
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.noise import GaussianNoise
from deft_ct.reconstruction import Reconstruction

SIDE, PIXEL_MM = 16, 20.0
INITIAL_ERROR = 0.15
"""Typical error of filtered back-projection in this problem, in the prior's range."""
_SPAN = PriorRange()


@dataclass(frozen=True, kw_only=True)
class KnownPosteriorSettings:
    """The scan and the data of the problem.

    Args:
        views: of the parallel-beam scan.
        sigma: standard deviation of the line integrals.
        tests: number of measurements that are compared.
        seed: of prior, data and noise.
    """

    views: int = 6
    sigma: float = 0.05
    tests: int = 16
    seed: int = 0


class KnownPosterior:
    """Prior, scan, data and exact posterior means.

    The prior is a mixture of Gaussians that is fitted to the train dataset. Half of the series of the val dataset are
    for training and tuning, the other half for testing.

    Args:
        settings: scan and data.
    """

    def __init__(self, settings: KnownPosteriorSettings) -> None:
        self.settings, self.seed, self.sigma = settings, settings.seed, settings.sigma
        schedule = Schedule()
        self.mixture = GaussianMixture.fit(_slices("train")[0], schedule, seed=self.seed)
        self.prior = Prior(self.mixture, schedule, value_range=_SPAN, image_shape=(1, SIDE, SIDE))
        geometry = ParallelGeometry(
            image_shape=(SIDE, SIDE), pixel_mm=PIXEL_MM, views=settings.views, detectors=SIDE, detector_mm=PIXEL_MM
        )
        self.measurement = Measurement(RayTransform(geometry), GaussianNoise(self.sigma), units=HounsfieldScale())
        images, series = _slices("val")
        half = sorted(set(series))[len(set(series)) // 2]
        other = torch.tensor([name < half for name in series])
        self.training = images[other]
        rest = images[~other]
        self.truth = rest[torch.linspace(0, len(rest) - 1, settings.tests).round().long()]
        self.tuning = self.training[torch.linspace(0, len(self.training) - 1, 8).round().long()]
        self.scale = self.measurement.scale_to(_SPAN)

    def with_noise(self, sigma: float) -> KnownPosterior:
        """The same problem with another standard deviation of the line integrals."""
        changed = copy.copy(self)
        changed.sigma = sigma
        noise = GaussianNoise(sigma)
        changed.measurement = Measurement(self.measurement.operator, noise, units=self.measurement.units)
        return changed

    def data(self, images: Tensor, label: str) -> Tensor:
        """Simulated measurements of images; ``label`` sets them apart from the measurements of other calls."""
        names = [f"{label}{k}" for k in range(len(images))]
        return self.measurement.simulate(self.scale(images), seed=self.seed, image_ids=names)

    def likelihood(self, y: Tensor) -> Likelihood:
        """Likelihood of data in the prior's range."""
        return self.measurement.likelihood(y, _SPAN)

    def exact(self, y: Tensor) -> Tensor:
        """Exact posterior means ``(B, 1, SIDE, SIDE)`` in the prior's range."""
        eye = torch.eye(SIDE**2).reshape(-1, 1, SIDE, SIDE)
        operator = self.measurement.operator
        matrix = self.scale.scale * operator(eye).flatten(1).T.double()
        offset = self.scale.offset * operator(torch.ones(1, 1, SIDE, SIDE)).flatten().double()
        return self.mixture.posterior_means(matrix, offset, self.sigma, y.flatten(1)).reshape(-1, 1, SIDE, SIDE).float()

    def score(self, result: Reconstruction, exact: Tensor) -> dict[str, Any]:
        """PSNR (dB) of the mean and of one sample, distance to the exact posterior mean, and cost.

        Args:
            result: of the test measurements, with samples.
            exact: posterior means, see :meth:`exact`.
        """
        assert result.samples is not None
        mean, samples = self.scale.inverse(result.mean), self.scale.inverse(result.samples)
        values = range_psnr(mean, self.truth)
        distance = (mean - exact).square().flatten(1).mean(1).sqrt()
        return {
            "psnr_db": values.tolist(),
            "psnr_mean_db": float(values.mean()),
            "psnr_standard_error_db": float(values.std() / len(values) ** 0.5),
            "psnr_single_sample_db": float(range_psnr(samples[:, 0], self.truth).mean()),
            "distance_to_exact_mean": float(distance.mean()),
            "seconds_per_image": result.provenance["seconds_per_image"],
            "evaluations_per_image": result.provenance["network_evaluations_per_image"],
        }


def range_psnr(x: Tensor, truth: Tensor) -> Tensor:
    """PSNR (dB) of each image of a batch in the prior's range, which is 2 wide."""
    return 10 * (4 / (x - truth).square().flatten(1).mean(1)).log10()


def small_htransform(initial_error: float = INITIAL_ERROR) -> HTransformConfig:
    """A small h-transform for this problem.

    Args:
        initial_error: error that it expects of its initial reconstruction before it is trained; with a large value it
            starts from the prior alone.
    """
    return HTransformConfig(
        guidance="fbp", reference="fbp", spread=initial_error,
        network=UNetConfig(patch=4, channels=(64,), attention=(False,), head_channels=64, norm_groups=8),
    )  # fmt: skip


def _slices(name: str) -> tuple[Tensor, list[str]]:
    """All slices of a dataset at 16 x 16 pixels in the prior's range, and the series of each."""
    pack = read_pack(name)
    hu = functional.avg_pool2d(pack.batch(list(range(len(pack)))).clamp_min(-1000), 256 // SIDE)
    return _SPAN.to_prior(hu), [pack[n].group for n in range(len(pack))]
