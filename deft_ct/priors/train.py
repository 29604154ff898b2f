"""Training of an unconditional prior on CT slices."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from deft_ct.networks import UNet, UNetConfig
from deft_ct.priors.prior import Prior
from deft_ct.schedule import Schedule
from deft_ct.training import TrainingConfig, fit
from deft_ct.units import PriorRange


class SliceSource(Protocol):
    """Training slices held in memory."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """The slices ``indices``: ``(B, 1, H, W)`` float32 in HU."""
        ...


def augment(hu: Tensor, generator: torch.Generator, *, air_hu: float = -1000.0) -> Tensor:
    """Mirror, shift, and at times rotate and scale slices a little: changes that keep anatomy plausible.

    Half are mirrored left to right; shifts are whole pixels, up to a 16th of the side; a third are rotated by up to 10
    degrees and scaled by up to 10 %. The resampling of the last kind smooths, so most slices keep their own noise
    texture.

    Args:
        hu: ``(B, 1, H, W)`` in HU.
        generator: source of all randomness, on the CPU.
        air_hu: fills what comes in from outside.

    Returns:
        ``(B, 1, H, W)`` in HU, never below ``air_hu``.
    """
    h, w = hu.shape[-2:]
    reach = min(h, w) // 16
    out = []
    for image in hu.clamp_min(air_hu).unbind(0):
        mirror, warp = torch.rand(2, generator=generator).tolist()
        dy, dx = (torch.randint(-reach, reach + 1, (2,), generator=generator)).tolist()
        angle, zoom = (2 * torch.rand(2, generator=generator) - 1).tolist()
        if mirror < 0.5:
            image = image.flip(-1)
        image = functional.pad(image, (reach, reach, reach, reach), value=air_hu)
        image = image[:, reach + dy : reach + dy + h, reach + dx : reach + dx + w]
        if warp < 1 / 3:
            image = _rotate_and_scale(image, 10 * angle, 1 + 0.1 * zoom, air_hu)
        out.append(image)
    return torch.stack(out)


def _rotate_and_scale(image: Tensor, degrees: float, zoom: float, fill: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([torch.stack([cos, -sin, cos * 0]), torch.stack([sin, cos, cos * 0])])[None]
    grid = functional.affine_grid(matrix, [1, *image.shape], align_corners=False)
    return functional.grid_sample(image[None] - fill, grid, align_corners=False)[0] + fill


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
