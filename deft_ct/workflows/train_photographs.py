"""Train an h-transform on degraded photographs: any operator that has a name, images of any number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deft_ct.diffusion import Prior, load_prior
from deft_ct.measurement.content import measurement_content
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import HTransform, HTransformConfig, load_htransform, load_refinement
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.trained_measurements import MEASUREMENTS, measurement_entries
from deft_ct.methods.initial import has_data_image, initial_for
from deft_ct.networks import NetworkConfig, UNetConfig
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.operators.linear import LinearOperator
from deft_ct.problems.natural_by_name import NaturalTask, parse_task
from deft_ct.problems.task_keys import NOISE_KEYS, gaussian_noise
from deft_ct.workflows.train_networks import AUTO, HTransformRecipe, RefinementRecipe, htransform_by_control
from deft_ct.workflows.train_priors import ImageDomain
from deft_ct.workflows.training_setup import htransform_network, new_network, record_card

if TYPE_CHECKING:  # imports accelerate, which takes seconds
    from deft_ct.training.pairs import PairSource

DRAWS = 64
"""Random masks, kernels and transforms of one task in a training. One of them serves a whole batch."""
REACH = 4.0
"""``HTransformConfig.reach`` over the typical error of the initial reconstruction: the noise at which a prior of
photographs estimates an image about as well."""
MEASURED = 64
"""Images that the typical error of an initial reconstruction is measured on."""


def parse_operators(text: str | None, noise: float | None = None) -> list[NaturalTask]:
    """The degradations of a training.

    Args:
        text: ``NAME[:key=value,...]``, see :func:`~deft_ct.problems.natural_by_name.parse_task`; several are joined by
            a plus.
        noise: standard deviation, on images in [-1, 1], for those that do not name their own. None for the usual one.

    Raises:
        ValueError: there is none, one is unknown, or the noise is negative or not finite.
    """
    if not text:
        raise ValueError("photographs need a degradation: give --operator NAME, for example --operator sr4")
    if noise is not None and not 0 <= noise < float("inf"):
        raise ValueError(f"--noise must be a number from 0, got {noise}")
    tasks = [parse_task(part) for part in text.split("+")]
    if noise is None:
        return tasks
    given = ("noise", f"{noise:g}")
    return [
        task
        if NOISE_KEYS.keys() & dict(task.given)
        else replace(task, noise=gaussian_noise(noise), given=(*task.given, given))
        for task in tasks
    ]


@dataclass(frozen=True, kw_only=True)
class DegradedPhotographs:
    """Photographs with the degradations of a training.

    Args:
        domain: the photographs.
        tasks: the degradations; each is drawn equally often.
        draws: random masks, kernels or transforms of a task that has such; the first is that of seed 0.
    """

    domain: ImageDomain
    tasks: Sequence[NaturalTask]
    draws: int = DRAWS

    def measurements(self) -> tuple[list[Measurement], list[float]]:
        """The measurements, and how often each is drawn.

        Raises:
            ValueError: a task does not suit the images.
        """
        found: list[Measurement] = []
        weights: list[float] = []
        for task in self.tasks:
            drawn = [self._measurement(task, 0)]
            if self.draws > 1 and measurement_content(self._measurement(task, 1)) != measurement_content(drawn[0]):
                drawn += [self._measurement(task, seed) for seed in range(1, self.draws)]
            found += drawn
            weights += [1 / len(drawn)] * len(drawn)
        return found, weights

    def _measurement(self, task: NaturalTask, seed: int) -> Measurement:
        return Measurement(*task.build(self.domain.image_shape, seed=seed))

    def check(self, prior: Prior) -> None:
        """Refuse a prior of other images.

        Raises:
            ValueError: the prior has a scale, as that of CT has, or another number of channels.
        """
        channels = self.domain.image_shape[0]
        if prior.value_range is not None:
            raise ValueError(
                "the prior is not one of photographs: its values have a unit; train one with "
                "`deft-ct train prior --data photos:...` and give it with --prior"
            )
        if prior.channels != channels:
            raise ValueError(f"the photographs have {channels} channels and the prior is for {prior.channels}")


def htransform_on_photographs(
    data: DegradedPhotographs, out: Path, settings: HTransformRecipe, *, progress: bool = False
) -> HTransform:
    """Train an h-transform on photographs. The same call resumes.

    Args:
        data: photographs and degradations.
        out: folder of the checkpoints; the caller saves the result.
        settings: how it is trained. Tables of initial reconstructions are not used.
        progress: show a progress bar.

    Returns:
        The h-transform with its model card, which names the measurements that it can be used with.

    Raises:
        ValueError: the settings, the prior, the photographs and the operators do not fit together.
        FileNotFoundError: a network does not exist.
        OtherContentError: the folder is of another training.
    """
    from deft_ct.methods.deft.train import HTransformTraining, train_htransform
    from deft_ct.training.pairs import PairSource

    training = settings.training
    new_network(settings.channels)  # refuses others before any work
    prior = load_prior(settings.prior)
    data.check(prior)
    measurements, weights = data.measurements()
    if settings.loss != "denoising" and len(measurements) != 1:
        raise ValueError(f"--loss {settings.loss} trains for one measurement: give one --operator, and --draws 1")
    first = None if settings.initial is None else load_htransform(settings.initial)
    refined = None if settings.refinement is None else load_refinement(settings.refinement)
    pairs = PairSource(data.domain.source, measurements, None, augment=data.domain.augment, weights=weights)
    config = photograph_config(pairs, prior, settings) if first is None else first.config
    config = config if refined is None else around_refinement(config, refined)
    for network in (config.network, *(() if config.refinement is None else (config.refinement.network,))):
        _check_sizes(data, network)
    if settings.loss != "denoising":
        made = htransform_by_control(pairs, prior, out, settings, config, initial=first, progress=progress)
    else:
        made = train_htransform(
            pairs, prior, out, config=config, training=training,
            options=HTransformTraining(initial=first, refinement=refined), progress=progress,
        )  # fmt: skip
    made.card |= photograph_card(data, measurements)
    made.card |= record_card(data.domain.card, training, out)
    return made


def photograph_card(data: DegradedPhotographs, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Entries of the model card: the tasks in words, and the measurements that the h-transform can be used with."""
    tasks = {"tasks": [task.text for task in data.tasks], "draws": data.draws}
    return tasks | {MEASUREMENTS: measurement_entries(measurements)}


def photograph_config(pairs: PairSource, prior: Prior, settings: HTransformRecipe) -> HTransformConfig:
    """What the network of a new h-transform sees: every image that one of the operators declares.

    Args:
        pairs: the training pairs.
        prior: gives channels and the shape of the network.
        settings: gives guidance, initial reconstruction and features of each level.

    Raises:
        ValueError: an initial reconstruction or a guidance needs a linear operator, and one is not.
    """
    initial, guidance = settings.initial_reconstruction, settings.guidance
    operators = [measurement.operator for measurement in pairs.measurements]
    without = [type(operator).__name__ for operator in operators if not has_data_image(operator)]
    nonlinear = [type(operator).__name__ for operator in operators if not isinstance(operator, LinearOperator)]
    if initial == AUTO:
        initial = "none" if without else "data"
    guidance = "score" if guidance == AUTO else guidance
    if without and initial == "data":
        raise ValueError(f"the data of {without[0]} have no image: take --initial-reconstruction none")
    if nonlinear and (initial == "tv" or guidance in ("cg", "split")):
        raise ValueError(
            f"{nonlinear[0]} is not linear: take --initial-reconstruction data or none, and --guidance score or adjoint"
        )
    config = HTransformConfig(
        reference=initial, guidance=guidance, tv_iterations=settings.tv_iterations, channels=prior.channels,
        operator_images=_declared(pairs), network=htransform_network(prior, settings.channels),
    )  # fmt: skip
    if initial == "none":
        return config
    spread = _error(pairs, initial)
    return replace(config, spread=spread, reach=REACH * spread)


def around_refinement(config: HTransformConfig, refinement: Refinement) -> HTransformConfig:
    """The configuration of an h-transform whose initial reconstruction is refined.

    Raises:
        ValueError: the h-transform does not start from the data as an image, or the refinement is of other images.
    """
    if config.reference != "data":
        raise ValueError(
            f"a refinement of photographs improves the image of the data, and this h-transform starts from "
            f"{config.reference}: take --initial-reconstruction data"
        )
    if refinement.config.scan_features or refinement.config.channels != config.channels:
        raise ValueError(
            "the refinement is one of CT slices, or of images with other channels: train it on photographs"
        )
    spread = float(f"{refinement.typical_error:.3g}")
    return replace(config, refinement=refinement.config, spread=spread, reach=REACH * spread)


def refinement_on_photographs(
    data: DegradedPhotographs, out: Path, settings: RefinementRecipe, *, progress: bool = False
) -> Refinement:
    """Train the refinement network of data images on photographs. The same call resumes.

    Args:
        data: photographs and degradations, whose data have an image.
        out: folder of the checkpoints; the caller saves the result.
        settings: how it is trained. Tables and TV are not used.
        progress: show a progress bar.

    Returns:
        The refinement network with its model card.

    Raises:
        ValueError: the photographs, the operators and the initial refinement do not fit together.
        FileNotFoundError: the initial refinement does not exist.
        OtherContentError: the folder is of another training.
    """
    from deft_ct.methods.deft.train_refinement import train_drawn_refinement
    from deft_ct.training.pairs import PairSource

    network = new_network(settings.channels, settings.patch)
    if settings.mirror:
        raise ValueError("--mirror is for scans, whose networks are told how to mirror them: leave it out")
    measurements, weights = data.measurements()
    first = None if settings.initial is None else load_refinement(settings.initial)
    pairs = PairSource(data.domain.source, measurements, None, augment=data.domain.augment, weights=weights)
    without = [type(m.operator).__name__ for m in measurements if not has_data_image(m.operator)]
    if without:
        raise ValueError(f"the data of {without[0]} have no image to refine: leave this operator out")
    config = RefinementConfig(
        guidance="score", spread=_error(pairs, "data"), channels=data.domain.image_shape[0], network=network,
        operator_images=_declared(pairs),
    ) if first is None else first.config  # fmt: skip
    _check_sizes(data, config.network)
    made = train_drawn_refinement(
        pairs, out, config=config, reference="data", training=settings.training, initial=first, progress=progress
    )
    made.card |= photograph_card(data, measurements)
    made.card |= record_card(data.domain.card, settings.training, out)
    return made


def _declared(pairs: PairSource) -> tuple[FeatureImage, ...]:
    """Every image that one of the operators declares of its data."""
    images: dict[str, FeatureImage] = {}
    for measurement in pairs.measurements:
        images |= {image.name: image for image in measurement.operator.feature_images if image.name not in images}
    return tuple(images.values())


@torch.no_grad()
def _error(pairs: PairSource, reference: str) -> float:
    """Root mean square error of an initial reconstruction on some of the training images."""
    initial, squares = initial_for(reference), []
    for k, indices in enumerate(torch.arange(min(MEASURED, len(pairs))).split(8)):
        drawn = pairs.seeded(indices, k)
        squares.append((initial(drawn.likelihood) - drawn.x0).square().mean())
    return float(f"{float(torch.stack(squares).mean().sqrt()):.3g}")


def _check_sizes(data: DegradedPhotographs, network: NetworkConfig) -> None:
    multiple = network.multiple if isinstance(network, UNetConfig) else 1
    if any(side % multiple for side in data.domain.image_shape[1:]):
        height, width = data.domain.image_shape[1:]
        raise ValueError(
            f"photographs of {height} x {width} pixels do not divide by {multiple}, the stride of the network: take "
            "another size"
        )
