"""Training of the h-transform by denoising score matching (DEFT section 3, arXiv 2406.01781).

Every step simulates new measurements of its slices, so the head is amortised over data and noise. The prior is
evaluated without a graph: it is neither trained nor differentiated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deft_ct.htransform.features import condition_for
from deft_ct.htransform.head import HTransform, HTransformConfig
from deft_ct.measurement import Likelihood, Measurement, PerImageMap
from deft_ct.networks import UNet
from deft_ct.priors import Prior
from deft_ct.priors.train import augment, sample_times
from deft_ct.training import TrainingConfig, Validation, fit
from deft_ct.units import HounsfieldScale


class ScannedSlices(Protocol):
    """Training slices in HU with their pixel size."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """The slices ``indices``: ``(B, 1, H, W)`` float32 in HU."""
        ...

    @property
    def pixel_mm(self) -> NDArray[np.float64]:
        """Pixel size of each slice, ``(N,)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Clean images with their simulated data."""

    x0: Tensor
    likelihood: Likelihood


def simulate_pairs(
    hu: Tensor, pixel_mm: Tensor, measurement: Measurement, prior: Prior, *, seed: int, refine: int = 2
) -> Pairs:
    """Simulate data for slices that may differ in pixel size.

    The scan is the same in units of the pixel, as with a fixed number of detectors across the field of view: the
    measurement's geometry has a pixel of 1 mm, and the image is attenuation per pixel.

    Args:
        hu: ``(B, 1, H, W)``.
        pixel_mm: ``(B,)``.
        measurement: with a pixel of 1 mm and a Hounsfield scale.
        prior: gives the range of the images.
        seed: of the noise.
        refine: grid refinement of the simulation.

    Returns:
        Images in the prior's range, and the likelihood of their data.

    Raises:
        ValueError: the prior or the measurement has no HU.
    """
    if prior.value_range is None:
        raise ValueError("training on CT needs a prior with a HU range")
    affine = measurement.scale_to(prior.value_range)
    width = pixel_mm.to(hu).reshape(-1, 1, 1, 1)
    to_physical = PerImageMap(width * affine.scale, width * affine.offset)
    x0 = prior.value_range.to_prior(hu)
    y = measurement.simulate(to_physical(x0), seed=seed, refine=refine)
    return Pairs(x0=x0, likelihood=Likelihood(measurement, y, to_physical))


def denoising_loss(
    network: nn.Module, htransform: HTransform, prior: Prior, pairs: Pairs, t: Tensor, noise: Tensor
) -> Tensor:
    """Denoising score matching with the prior frozen: the error of the conditional estimate, weighted over time.

    Without a reference this is the paper's loss, the squared error of the noise. With one, the error of ``x_0`` is
    divided by the spread ``c(t)`` of the belief, so that every noise level counts alike.

    Args:
        network: ``htransform`` itself, or a wrapper of it (distributed, compiled).
        htransform: gives configuration and noise levels.
        prior: frozen.
        pairs: images and data.
        t: times ``(B,)``.
        noise: standard normal, of the shape of the images.

    Returns:
        Scalar loss.
    """
    likelihood, x0 = pairs.likelihood, pairs.x0
    x_t = prior.schedule.add_noise(x0, noise, t)
    with torch.no_grad():
        tweedie, eps = prior.predict(x_t, t)
        guidance = likelihood.guidance(tweedie, htransform.config.guidance)
        condition = condition_for(likelihood, htransform.config)
    x0_y, eps_y = network(x_t, t, tweedie, eps, guidance, condition)
    if htransform.config.reference == "none":
        return (eps_y - noise).square().mean()
    scale = htransform.noise_levels(t, x_t)[3]
    return ((x0_y - x0) / scale).square().mean()


def train_htransform(
    source: ScannedSlices,
    prior: Prior,
    measurements: Sequence[Measurement],
    folder: Path,
    *,
    config: HTransformConfig,
    training: TrainingConfig,
    refine: int = 2,
    time_power: float = 1.0,
    from_prior: bool = True,
    validation: Validation | None = None,
    progress: bool = True,
) -> HTransform:
    """Train the h-transform of a prior for one scan, or for several at once.

    Args:
        source: training slices.
        prior: the frozen model.
        measurements: scans with a pixel of 1 mm; every step uses one of them, drawn at random.
        folder: checkpoint and log; an interrupted training goes on from it.
        config: what the head sees.
        training: optimiser settings.
        refine: grid refinement of the simulation, see ``Measurement.simulate``.
        time_power: see ``sample_times``.
        from_prior: start the head's network from the prior's weights where the shapes allow, output at zero.
        validation: scores the averaged head.
        progress: show a progress bar.

    Returns:
        The head with the averaged weights.

    Raises:
        ValueError: a measurement has no Hounsfield scale.
    """
    if any(m.units is None for m in measurements) or not measurements:
        raise ValueError("every measurement needs units=HounsfieldScale()")
    units = measurements[0].units or HounsfieldScale()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        htransform = HTransform(config, prior.schedule, prior_hash=prior.content_hash())
    if from_prior:
        _start_from_prior(htransform, prior)
    pixel_mm = torch.from_numpy(np.asarray(source.pixel_mm, np.float32))
    air = units.to_hu(0.0)

    def loss(net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        device = generator.device
        seed = int(torch.randint(2**62, (1,), generator=generator, device=device))
        host = torch.Generator().manual_seed(seed)
        hu = augment(source.batch(indices), host, air_hu=max(air, -1000.0)).to(device)
        scan = measurements[int(torch.randint(len(measurements), (1,), generator=host))]
        pairs = simulate_pairs(hu, pixel_mm[indices], scan, prior, seed=seed, refine=refine)
        t = sample_times(len(indices), prior.schedule, generator, time_power)
        noise = torch.randn(hu.shape, generator=generator, device=device)
        return denoising_loss(net, htransform, prior, pairs, t, noise)

    averaged = fit(htransform, loss, len(source), training, folder, validation=validation, progress=progress)
    return cast(HTransform, averaged.cpu())


def _start_from_prior(htransform: HTransform, prior: Prior) -> None:
    """Copy the prior's weights into the head, all but the output; the first layer sees an image where it saw x_t."""
    if not isinstance(prior.network, UNet):
        return
    own, given = htransform.network.state_dict(), prior.network.state_dict()
    pixels = prior.network.config.patch**2
    for name, value in given.items():
        if name.startswith("conv_out.") or name not in own:
            continue
        if own[name].shape == value.shape:
            own[name].copy_(value)
        elif name == "conv_in.weight" and own[name].shape[0] == value.shape[0]:
            # The first image that the head sees is, like x_t, of unit spread; the others start small.
            own[name][:, :pixels].copy_(value)
            own[name][:, pixels:].mul_(0.5)
