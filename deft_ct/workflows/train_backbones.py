"""Train an unconditional prior of protein backbones: chains of C-alpha atoms in angstrom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deft_ct.datasets.backbones import BackboneFile, ChainSets
from deft_ct.diffusion import Prior, load_prior
from deft_ct.diffusion.schedule import BetaSchedule, Schedule
from deft_ct.methods.deft import HTransform, HTransformConfig, load_htransform
from deft_ct.networks import BackboneNetworkConfig
from deft_ct.networks.storage import BACKBONES
from deft_ct.operators.feature_images import FeatureImage
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
        return BackboneNetworkConfig(width=self.width, layers=self.layers)


def htransform_on_backbones(
    data: str, out: Path, settings: HTransformRecipe, *, layers: int = 1, progress: bool = False
) -> HTransform:
    """Train an h-transform that scaffolds motifs. The same call resumes.

    Its network is of the kind of the prior's, sees the motif by project guidance and a mask, and is trained on motifs
    cut from the training chains, see :class:`~deft_ct.protein.motif_pairs.MotifPairs`.

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
    from deft_ct.methods.deft.train import HTransformTraining, train_htransform

    training = settings.training
    if settings.prior is None:
        raise ValueError(
            "backbones need a prior of backbones: give --prior, from `deft-ct train prior --data backbones:`"
        )
    if settings.loss != "denoising" or settings.guidance not in (AUTO, "project", "score"):
        raise ValueError("on backbones the loss is denoising, and the guidance project or score")
    prior = load_prior(settings.prior)
    if not isinstance(getattr(prior.network, "config", None), BackboneNetworkConfig):
        raise ValueError("--prior is not one of backbones")
    file = BackboneFile(data)
    chains = ChainSets([chain.ca for chain in file.training_chains()], training.batch_size // training.accumulate)
    shape = BackboneRecipe(width=backbone_width(settings.channels), layers=layers).network()
    config = HTransformConfig(
        guidance="project" if settings.guidance == AUTO else settings.guidance, reference="none", channels=3,
        operator_images=(FeatureImage(name="mask", dimensionless=True, absent=1.0),),
        network=replace(shape, in_channels=6, scalars=1),
    )  # fmt: skip
    first = None if settings.initial is None else load_htransform(settings.initial)
    made = train_htransform(
        MotifPairs(chains, TOLERANCE), prior, out, config=config if first is None else first.config,
        training=replace(training, batch_size=training.accumulate),
        options=HTransformTraining(initial=first, time_power=TIME_POWER), progress=progress,
    )  # fmt: skip
    size, whole = (sum(p.numel() for p in network.parameters()) for network in (made, prior))
    made.card |= {"domain": BACKBONES, "share_of_prior": round(size / whole, 4)}
    made.card |= record_card({"name": file.path.name, "chains": len(chains)}, training, out)
    return made


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
