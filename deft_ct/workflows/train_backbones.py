"""Train an unconditional prior of protein backbones: chains of C-alpha atoms in angstrom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deft_ct.datasets.backbones import BackboneFile, ChainSets
from deft_ct.diffusion import Prior, load_prior
from deft_ct.diffusion.schedule import BetaSchedule, Schedule
from deft_ct.networks import BackboneNetworkConfig
from deft_ct.networks.storage import BACKBONES
from deft_ct.protein.pose import posed
from deft_ct.protein.scale import BACKBONE_RANGE
from deft_ct.runtime.fields import check_fields
from deft_ct.workflows.training_setup import record_card

if TYPE_CHECKING:  # imports accelerate, which takes seconds
    from deft_ct.training import TrainingConfig

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
    first = None if recipe.initial is None else load_prior(recipe.initial)
    network = recipe.network()
    if first is not None:
        config = getattr(first.network, "config", None)
        network = config if isinstance(config, BackboneNetworkConfig) else network
    spec = PriorSpec(
        network=network, value_range=BACKBONE_RANGE, schedule=Schedule(kind=recipe.schedule),
        image_shape=(chains.longest, 3), time_power=TIME_POWER,
    )  # fmt: skip
    sets = replace(training, batch_size=training.accumulate)  # items of the loop are sets of chains
    made = train_prior(chains, out, spec=spec, training=sets, augment=posed, initial=first, progress=progress)
    card = {"name": file.path.name, "chains": len(chains)}
    made.card |= {"domain": BACKBONES} | record_card(card, training, out)
    if first is not None:
        made.card |= {"initial_sha256": first.content_hash()}
    return made
