"""Training of an unconditional prior on images or points of any domain."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from deft_ct.diffusion.prior import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks import NetworkConfig
from deft_ct.operators.memory import check_memory
from deft_ct.training import TrainingConfig, fit
from deft_ct.training.augment import Augmentation, unchanged
from deft_ct.training.pairs import TrainingSource, augmentation_name, images_digest


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


@dataclass(frozen=True, kw_only=True)
class PriorSpec:
    """What a new prior is.

    Args:
        network: shape of the network.
        image_shape: of the training data, stored with the prior: ``(C, H, W)``, or ``(N, F)`` for points.
        schedule: noise schedule.
        value_range: values, in the unit of a scale, of -1 and +1; None if the source is in the prior's range.
        time_power: distribution of the training times, see :func:`sample_times`.
    """

    network: NetworkConfig
    image_shape: tuple[int, ...]
    schedule: Schedule = field(default_factory=Schedule)
    value_range: PriorRange | None = None
    time_power: float = 1.3

    def prior(self, network: nn.Module) -> Prior:
        """The prior with this network, which becomes frozen."""
        return Prior(
            network, self.schedule, prediction="v_prediction", value_range=self.value_range,
            image_shape=self.image_shape,
        )  # fmt: skip


def train_prior(
    source: TrainingSource,
    folder: Path,
    *,
    spec: PriorSpec,
    training: TrainingConfig,
    augment: Augmentation = unchanged,
    initial: Prior | None = None,
    progress: bool = True,
) -> Prior:
    """Train a prior with velocity prediction (Salimans and Ho 2022, arXiv 2202.00512, section 4).

    The velocity keeps Tweedie's estimate accurate at the noisy end, where an error of a noise prediction would be
    multiplied by ``1 / sqrt(abar)``.

    Args:
        source: training images ``(B, *image_shape)``, in the unit of the scale or in the prior's range.
        folder: checkpoint and log; an interrupted training resumes from it.
        spec: network, shape, schedule and range of values.
        training: optimiser settings.
        augment: random change of the images, in the unit of the source.
        initial: start from the weights of this prior instead of at random.
        progress: show a progress bar.

    Returns:
        The prior with the averaged weights, on the CPU.

    Raises:
        ValueError: ``initial`` has another network, schedule, prediction or range of values, or a batch does not fit
            into memory.
        OtherContentError: the folder is of another training.
    """
    span, schedule, part = spec.value_range, spec.schedule, training.batch_size // training.accumulate
    check_memory(
        16 * part * math.prod(spec.image_shape), f"a batch of {part} images",
        "take a smaller batch_size, or accumulate more parts",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = spec.network.build()
    if initial is None:
        model.zero_output()
    else:
        made = spec.prior(model)
        if getattr(initial.network, "config", None) != spec.network or initial.description() != made.description():
            raise ValueError("the initial prior has another network, schedule or range; use the same to start from it")
        model.requires_grad_(True)
        model.load_state_dict(initial.network.state_dict())

    def loss(net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        host = torch.Generator().manual_seed(seed)
        images = augment(source.batch(indices), host)
        x0 = (images if span is None else span.to_prior(images)).to(generator.device)
        t = sample_times(len(x0), schedule, generator, spec.time_power)  # an item may be a set of images of one shape
        noise = torch.randn(x0.shape, generator=generator, device=generator.device)
        v = net(schedule.add_noise(x0, noise, t), t)
        return (v.float() - schedule.velocity(x0, noise, t)).square().mean()

    identity = asdict(spec) | {
        "network": spec.network.to_dict(), "data": images_digest(source), "augment": augmentation_name(augment),
        "initial": initial and initial.content_hash(),
    }  # fmt: skip
    return spec.prior(fit(model, loss, len(source), training, folder, identity=identity, progress=progress).cpu())
