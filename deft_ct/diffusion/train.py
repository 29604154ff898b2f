"""Training of an unconditional prior on CT slices."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from deft_ct.diffusion.prior import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks import UNet, UNetConfig
from deft_ct.training import TrainingConfig, fit
from deft_ct.training.augment import augment


class SliceSource(Protocol):
    """Training slices held in memory."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """The slices ``indices``: ``(B, 1, H, W)`` float32 in HU."""
        ...


def sample_times(count: int, schedule: Schedule, generator: torch.Generator, power: float) -> Tensor:
    """Stratified random times ``steps * u ** power``, one for each item: less noisy losses than independent ones.

    Args:
        count: how many.
        schedule: gives the range ``0 .. steps - 1``.
        generator: source of randomness.
        power: 1 is uniform; above 1 prefers low noise, where the detail of an image is decided.

    Returns:
        ``(count,)`` on the generator's device: int64, or float32 where the schedule is continuous in time.
    """
    u = torch.arange(count, device=generator.device) + torch.rand(count, generator=generator, device=generator.device)
    order = torch.randperm(count, generator=generator, device=generator.device)
    t = schedule.steps * (u[order] / count) ** power
    if schedule.continuous:  # from the cleanest time of the discrete schedule on: there is nothing to learn below
        return t.clamp(0, schedule.steps - 1)
    return t.long().clamp_max(schedule.steps - 1)


def train_prior(
    source: SliceSource,
    folder: Path,
    *,
    network: UNetConfig,
    schedule: Schedule,
    training: TrainingConfig,
    value_range: PriorRange | None = None,
    image_size: int = 256,
    time_power: float = 1.3,
    initial: Prior | None = None,
    progress: bool = True,
) -> Prior:
    """Train a prior with velocity prediction (Salimans and Ho 2022, arXiv 2202.00512, section 4).

    The velocity keeps Tweedie's estimate accurate at the noisy end, where an error of a noise prediction would be
    multiplied by ``1 / sqrt(abar)``.

    Args:
        source: training slices in HU.
        folder: checkpoint and log; an interrupted training goes on from it.
        network: shape of the U-Net.
        schedule: noise schedule.
        training: optimiser settings.
        value_range: HU that -1 and +1 stand for; the default when left out.
        image_size: side of the slices, stored with the prior.
        time_power: see :func:`sample_times`.
        initial: start from the weights of this prior instead of at random.
        progress: show a progress bar.

    Returns:
        The prior with the averaged weights.

    Raises:
        ValueError: ``initial`` has another network, schedule, prediction or range of values.
    """
    span = value_range or PriorRange()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = UNet(network)
    if initial is None:
        model.zero_output()
    else:
        made = Prior(model, schedule, prediction="v_prediction", value_range=span, image_size=image_size)
        if getattr(initial.network, "config", None) != network or initial.description() != made.description():
            raise ValueError("the initial prior has another network, schedule or range: they must be equal to go on")
        model.requires_grad_(True)
        model.load_state_dict(initial.network.state_dict())

    def loss(net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        host = torch.Generator().manual_seed(seed)
        x0 = span.to_prior(augment(source.batch(indices), host)).to(generator.device)
        t = sample_times(len(indices), schedule, generator, time_power)
        noise = torch.randn(x0.shape, generator=generator, device=generator.device)
        v = net(schedule.add_noise(x0, noise, t), t)
        return (v.float() - schedule.velocity(x0, noise, t)).square().mean()

    averaged = fit(model, loss, len(source), training, folder, progress=progress)
    return Prior(averaged.cpu(), schedule, prediction="v_prediction", value_range=span, image_size=image_size)
