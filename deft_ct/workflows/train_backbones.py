"""Train networks of protein backbones, chains of C-alpha atoms in angstrom: prior, h-transform, amortised model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from deft_ct.datasets.backbones import BackboneFile, ChainSets
from deft_ct.diffusion import Prior, load_prior
from deft_ct.diffusion.schedule import BetaSchedule, Schedule
from deft_ct.methods.deft import HTransform, HTransformConfig, load_htransform
from deft_ct.methods.deft.control import ControlConfig
from deft_ct.methods.supervised.amortised import AmortisedModel
from deft_ct.methods.supervised.model import METADATA
from deft_ct.networks import BackboneNetworkConfig
from deft_ct.networks.backbone import heads_for
from deft_ct.networks.storage import BACKBONES
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.protein.motif_measurements import MotifMeasurements
from deft_ct.protein.motif_pairs import MotifPairs
from deft_ct.protein.pose import posed
from deft_ct.protein.scale import BACKBONE_RANGE
from deft_ct.runtime.fields import check_fields
from deft_ct.workflows.train_networks import AUTO, HTransformRecipe
from deft_ct.workflows.training_setup import continued_from, record_card

if TYPE_CHECKING:  # imports accelerate, which takes seconds
    from deft_ct.training import TrainingConfig

TOLERANCE = 0.1
"""Standard deviation of the coordinates of a motif in a training, angstrom."""
MASK = FeatureImage(name="mask", dimensionless=True, absent=1.0)
"""What networks are told of the residues of a motif."""
TIME_POWER = 2.0
"""Half of the training times have noise below 0.96 of the spread of a coordinate, see ``sample_times``. Bonds and
turns are decided there."""


@dataclass(frozen=True, kw_only=True)
class BackboneRecipe:
    """How a prior of backbones is trained.

    Args:
        width: features of each residue.
        layers: attention blocks of each of the two stages.
        schedule: kind of the noise schedule.
        initial: path or name of a prior to start from, whose shape is used.

    Raises:
        ValueError: the network cannot be.
    """

    width: int = 128
    layers: int = 2
    schedule: BetaSchedule = "linear"
    initial: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        self.network()

    def network(self) -> BackboneNetworkConfig:
        """The shape of a new network."""
        return BackboneNetworkConfig(width=self.width, layers=self.layers, heads=heads_for(self.width))


def htransform_on_backbones(
    data: str, out: Path, settings: HTransformRecipe, *, layers: int = 1, progress: bool = False
) -> HTransform:
    """Train an h-transform that scaffolds motifs. The same call resumes.

    Its network is of the kind of the prior's and sees the motif by project guidance and a mask. With the loss
    ``"denoising"`` it is trained on motifs cut from the training chains, see
    :class:`~deft_ct.protein.motif_pairs.MotifPairs`. The losses of stochastic control see the motifs alone, see
    :class:`~deft_ct.protein.motif_measurements.MotifMeasurements`.

    Args:
        data: ``backbones:FILE``.
        out: folder of the checkpoints; the caller saves the result.
        settings: how it is trained; ``channels`` is the width.
        layers: attention blocks of each stage.
        progress: show a progress bar.

    Returns:
        The h-transform with its model card, which says its share of the prior's parameters.

    Raises:
        FileNotFoundError: no such file, or no prior.
        ReadError: the file is damaged, or breaks the rule that no chain that is held out is trained on.
        ValueError: the prior is not one of backbones, or the settings do not suit.
        OtherContentError: the folder is of another training.
    """
    shape = BackboneRecipe(width=backbone_width(settings.channels), layers=layers).network()
    if settings.guidance not in (AUTO, "project", "score"):
        raise ValueError("backbones take guidance project or score")
    prior = backbone_prior(settings.prior)
    file = BackboneFile(data)
    first = None if settings.initial is None else load_htransform(settings.initial)
    config = first.config if first is not None else HTransformConfig(
        guidance="project" if settings.guidance == AUTO else settings.guidance, reference="none", channels=3,
        operator_images=(MASK,), network=replace(shape, in_channels=6, scalars=1),
    )  # fmt: skip
    chains = [chain.ca for chain in file.training_chains()]
    train = _by_pairs if settings.loss == "denoising" else _by_control
    made = train(chains, prior, out, settings, config, first, progress)
    size, whole = (sum(p.numel() for p in network.parameters()) for network in (made, prior))
    made.card |= {"domain": BACKBONES, "share_of_prior": round(size / whole, 4)}
    made.card |= record_card({"name": file.path.name, "chains": len(chains)}, settings.training, out)
    return made


def _by_pairs(
    chains: list[Tensor], prior: Prior, out: Path, settings: HTransformRecipe, config: HTransformConfig,
    first: HTransform | None, progress: bool,
) -> HTransform:  # fmt: skip
    """From chains with their motifs."""
    from deft_ct.methods.deft.train import HTransformTraining, train_htransform

    training = settings.training
    sets = ChainSets(chains, training.batch_size // training.accumulate)
    return train_htransform(
        MotifPairs(sets, TOLERANCE), prior, out, config=config,
        training=replace(training, batch_size=training.accumulate),  # items of the loop are sets of chains
        options=HTransformTraining(initial=first, time_power=TIME_POWER), progress=progress,
    )  # fmt: skip


def _by_control(
    chains: list[Tensor], prior: Prior, out: Path, settings: HTransformRecipe, config: HTransformConfig,
    first: HTransform | None, progress: bool,
) -> HTransform:  # fmt: skip
    """From motifs alone, each with its paths by itself."""
    from deft_ct.methods.deft.train_control import ControlTraining, train_control

    training = settings.training
    assert settings.loss != "denoising", "that loss needs chains"
    control = ControlConfig(objective=settings.loss, steps=settings.path_steps, paths=settings.paths)
    one_by_one = replace(training, accumulate=training.batch_size)
    return train_control(
        MotifMeasurements(chains, TOLERANCE, seed=training.seed), prior, out,
        ControlTraining(config=config, training=one_by_one, initial=first, control=control), progress=progress,
    )  # fmt: skip


def backbone_prior(name: str | None) -> Prior:
    """A prior of backbones by path or name.

    Raises:
        FileNotFoundError: there is no such prior.
        ValueError: none is named, or it is not one of backbones.
    """
    if name is None:
        raise ValueError(
            "backbones need a prior of backbones: give --prior, from `deft-ct train prior --data backbones:`"
        )
    prior = load_prior(name)
    if not isinstance(getattr(prior.network, "config", None), BackboneNetworkConfig):
        raise ValueError("--prior is not one of backbones")
    return prior


def backbone_width(channels: str) -> int:
    """The width of a network of backbones, from the text of ``--channels``.

    Raises:
        ValueError: the text is not one number.
    """
    if not (channels.isascii() and channels.isdecimal()):
        raise ValueError(f"the network of backbones has one width: give --channels 128, got {channels!r}")
    return int(channels)


def prior_on_backbones(
    data: str, out: Path, recipe: BackboneRecipe, training: TrainingConfig, *, progress: bool = False
) -> Prior:
    """Train a prior. The same call resumes.

    A batch of ``training.batch_size`` chains is evaluated in ``training.accumulate`` parts. The chains of a part have
    nearly equal lengths and are cut to the shortest.

    Args:
        data: ``backbones:FILE``, see :class:`~deft_ct.datasets.backbones.BackboneFile`.
        out: folder of the checkpoints; the caller saves the result.
        recipe: shape and schedule.
        training: settings of the training loop.
        progress: show a progress bar.

    Returns:
        The prior with its model card.

    Raises:
        FileNotFoundError: no such file.
        ReadError: the file is damaged, or breaks the rule that no chain that is held out is trained on.
        ValueError: there are fewer chains than a part has, or the initial prior is of another domain.
        OtherContentError: the folder is of another training.
    """
    from deft_ct.diffusion.train import PriorSpec, train_prior

    file = BackboneFile(data)
    chains = ChainSets([chain.ca for chain in file.training_chains()], training.batch_size // training.accumulate)
    first, network = continued_from(recipe.initial, recipe.network())
    spec = PriorSpec(
        network=network, value_range=BACKBONE_RANGE, schedule=Schedule(kind=recipe.schedule),
        image_shape=(chains.longest, 3), time_power=TIME_POWER,
    )  # fmt: skip
    sets = replace(training, batch_size=training.accumulate)  # items of the loop are sets of chains
    made = train_prior(chains, out, spec=spec, training=sets, augment=posed, initial=first, progress=progress)
    card = {"name": file.path.name, "chains": len(chains)}
    made.card |= {"domain": BACKBONES} | record_card(card, training, out)
    made.card |= {} if first is None else {"initial_sha256": first.content_hash()}
    return made


def amortised_on_backbones(
    data: str, out: Path, initial: str | None, training: TrainingConfig, *, progress: bool = False
) -> AmortisedModel:
    """Fine-tune a whole prior to scaffold motifs, on chains with their motifs. The same call resumes.

    Args:
        data: ``backbones:FILE``.
        out: folder of the checkpoints; the caller saves the result.
        initial: path or name of the prior, or folder of an amortised model.
        training: settings of the training loop; as of :func:`prior_on_backbones`.
        progress: show a progress bar.

    Returns:
        The model with its card.

    Raises:
        FileNotFoundError: no such file, or no prior.
        ReadError: the file is damaged, or breaks the rule that no chain that is held out is trained on.
        ValueError: the prior is not one of backbones.
        OtherContentError: the folder is of another training.
    """
    from deft_ct.methods.supervised.train import train_model

    if initial is None:
        raise ValueError("backbones need a prior to start from: give --initial PRIOR")
    file = BackboneFile(data)
    again = (Path(initial) / METADATA).is_file()
    first = AmortisedModel.load(initial) if again else AmortisedModel.from_prior(backbone_prior(initial))
    chains = [chain.ca for chain in file.training_chains()]
    sets = ChainSets(chains, training.batch_size // training.accumulate)
    made = train_model(
        AmortisedModel, first.shape, MotifPairs(sets, TOLERANCE), out,
        training=replace(training, batch_size=training.accumulate), initial=first, progress=progress,
    )  # fmt: skip
    made.card |= {"domain": BACKBONES, "initial_sha256": first.content_hash()}
    made.card |= record_card({"name": file.path.name, "chains": len(chains)}, training, out)
    return made
