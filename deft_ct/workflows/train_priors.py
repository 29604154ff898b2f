"""Train an unconditional prior on images of a domain: CT slices, or photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_ct.datasets.photographs import is_photographs, photographs
from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import BetaSchedule, Schedule
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks import UNetConfig
from deft_ct.runtime.fields import check_fields
from deft_ct.workflows.training_setup import continued_from, new_network, record_card, slices_card, training_slices

if TYPE_CHECKING:  # these import accelerate, which takes seconds
    from deft_ct.training import TrainingConfig
    from deft_ct.training.augment import Augmentation
    from deft_ct.training.pairs import TrainingSource


@dataclass(frozen=True, kw_only=True)
class PriorRecipe:
    """How a prior is trained.

    Args:
        channels: features of each level of a new network, for example ``"64,96,128"``.
        patch: side of its space-to-depth stem in pixels.
        layers: residual blocks of each level.
        attention: levels with self-attention, counted from 1, for example ``"2,3"``; empty for none.
        schedule: kind of the noise schedule.
        initial: path or name of a prior to start from, whose shape is used.

    Raises:
        ValueError: a value is of another type, or the network cannot be.
    """

    channels: str = "64,96,128"
    patch: int = 4
    layers: int = 1
    attention: str = ""
    schedule: BetaSchedule = "linear"
    initial: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        self.network()

    def network(self) -> UNetConfig:
        """The shape of a new network for images of one channel."""
        return new_network(self.channels, self.patch, self.layers, self.attention)


@dataclass(frozen=True, kw_only=True)
class ImageDomain:
    """Training images and what their values mean.

    Attributes:
        source: the images.
        card: name and size of the data, for the model card.
        image_shape: ``(C, H, W)``.
        value_range: values of -1 and +1 in the unit of a scale; None where the images are in [-1, 1] already.
        augment: random change of the images.
        time_power: distribution of the training times, see :func:`~deft_ct.diffusion.train.sample_times`.
    """

    source: TrainingSource
    card: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    value_range: PriorRange | None
    augment: Augmentation
    time_power: float


def image_domain(data: str) -> ImageDomain:
    """The images of a name of data, and their domain.

    Args:
        data: ``photos:...`` (see :func:`~deft_ct.datasets.photographs.photographs`), or CT slices (see
            :func:`~deft_ct.workflows.training_setup.training_slices`).
    """
    from deft_ct.ct.pairs import augment_slices
    from deft_ct.training.augment import mirrored

    if is_photographs(data):
        photos = photographs(data)
        channels = int(photos[0].shape[0])
        return ImageDomain(
            source=photos, card={"name": Path(data.removeprefix("photos:")).name, "photographs": len(photos)},
            image_shape=(channels, *photos.image_shape), value_range=None, augment=mirrored, time_power=1.0,
        )  # fmt: skip
    slices = training_slices(data)
    return ImageDomain(
        source=slices, card=slices_card(slices), image_shape=(1, *slices.image_shape),
        value_range=PriorRange(), augment=augment_slices, time_power=1.3,
    )  # fmt: skip


def prior_on_images(
    domain: ImageDomain, out: Path, recipe: PriorRecipe, training: TrainingConfig, *, progress: bool = False
) -> Prior:
    """Train a prior. The same call resumes.

    Args:
        domain: the images.
        out: folder of the checkpoints; the caller saves the result.
        recipe: shape and schedule.
        training: settings of the training loop.
        progress: show a progress bar.

    Returns:
        The prior with its model card.

    Raises:
        ValueError: the images do not divide by the network's strides, or the initial prior is of another domain.
        OtherContentError: the folder is of another training.
    """
    from deft_ct.diffusion.train import PriorSpec, train_prior

    channels = domain.image_shape[0]
    first, network = continued_from(recipe.initial, recipe.network().with_channels(channels, channels))
    if any(side % network.multiple for side in domain.image_shape[1:]):
        raise ValueError(
            f"images of {domain.image_shape[1]} x {domain.image_shape[2]} pixels do not divide by {network.multiple}, "
            "the stride of the network: take another size, fewer levels of --channels or a smaller --patch"
        )
    spec = PriorSpec(
        network=network, value_range=domain.value_range, schedule=Schedule(kind=recipe.schedule),
        image_shape=domain.image_shape, time_power=domain.time_power,
    )  # fmt: skip
    made = train_prior(
        domain.source, out, spec=spec, training=training, augment=domain.augment, initial=first, progress=progress
    )
    made.card |= record_card(domain.card, training, out)
    made.card |= {} if first is None else {"initial_sha256": first.content_hash()}
    return made
