"""Training of the h-transform by denoising score matching (DEFT section 3, arXiv 2406.01781).

Every step simulates new measurements of its images, so the h-transform is amortised over data and noise. The prior is
evaluated without a graph: it is neither trained nor differentiated.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.train import sample_times
from deft_ct.methods.deft.conditioning import Start, condition_for, with_estimate
from deft_ct.methods.deft.config import HTransformConfig
from deft_ct.methods.deft.htransform import HTransform
from deft_ct.methods.deft.initial_table import ReferenceTable, TableConfig, draw_batch
from deft_ct.methods.deft.refinement import Refinement
from deft_ct.methods.deft.scan_embedding import with_new_features
from deft_ct.training import TrainingConfig, fit
from deft_ct.training.pairs import Pairs, PairSource

__all__ = ["HTransformTraining", "Pairs", "denoising_loss", "start_from_htransform", "train_htransform"]


def denoising_loss(
    network: nn.Module,
    htransform: HTransform,
    prior: Prior,
    pairs: Pairs,
    t: Tensor,
    noise: Tensor,
    *,
    tabulated: Start | None = None,
) -> Tensor:
    """Denoising score matching with the prior frozen: the error of the conditional estimate, weighted over time.

    The error of ``x_0`` is divided by the standard deviation ``c(t)``, so that every noise level has the same weight.
    For noise below ``s`` this is the squared error of the noise, the paper's loss. Above it, the paper's loss gives an
    error of the image the weight ``1 / sigma^2``, and its estimates at the noisiest times remain useless.

    Args:
        network: ``htransform`` itself, or a wrapper of it (distributed, compiled).
        htransform: gives configuration and noise levels.
        prior: frozen.
        pairs: images and data.
        t: times ``(B,)``.
        noise: standard normal, of the shape of the images.
        tabulated: initial reconstructions of the pairs, see ``condition_for``.

    Returns:
        Scalar loss.
    """
    likelihood, x0 = pairs.likelihood, pairs.x0
    x_t = prior.schedule.add_noise(x0, noise, t)
    with torch.no_grad():
        tweedie, eps = prior.predict(x_t, t)
        guidance = htransform.guidance_at(likelihood, tweedie, t)
        condition = condition_for(likelihood, htransform, tabulated=tabulated)
        condition = with_estimate(condition, likelihood, htransform, tweedie)
    x0_y, _ = network(x_t, t, tweedie, eps, guidance, condition)
    scale = htransform.noise_levels(t, x_t, condition)[3]
    return ((x0_y - x0) / scale).square().mean()


@dataclass(frozen=True, kw_only=True)
class HTransformTraining:
    """How the training of an h-transform starts and what it is given.

    Args:
        from_prior: start the network from the prior's weights where the shapes allow, output at zero.
        initial: start from the weights of this h-transform instead, see :func:`start_from_htransform`.
        refinement: network that refines the initial reconstruction, trained before and kept as it is; its shape is in
            the configuration.
        table: initial reconstructions computed before, of the same images, measurements and weights; a step then takes
            whole batches of it instead of simulating new data. None computes them at every step.
        time_power: distribution of the training times, see ``sample_times``.
    """

    from_prior: bool = True
    initial: HTransform | None = None
    refinement: Refinement | None = None
    table: ReferenceTable | None = None
    time_power: float = 1.0


def train_htransform(
    drawn: PairSource,
    prior: Prior,
    folder: Path,
    *,
    config: HTransformConfig,
    training: TrainingConfig,
    options: HTransformTraining | None = None,
    progress: bool = True,
) -> HTransform:
    """Train the h-transform of a prior for one measurement operator, or for several at once.

    Args:
        drawn: draws training pairs.
        prior: the frozen model.
        folder: checkpoint and log; an interrupted training resumes from it.
        config: what the network sees.
        training: optimiser settings.
        options: where the training starts, and more.
        progress: show a progress bar.

    Returns:
        The h-transform with the averaged weights, on the CPU.

    Raises:
        ValueError: the pairs are in another range than the prior's images, or ``initial`` is of another kind.
        OtherContentError: the folder is of another training.
    """
    options = options or HTransformTraining()
    initial, refinement, table = options.initial, options.refinement, options.table
    if drawn.value_range != prior.value_range:
        raise ValueError(
            f"the pairs have the range {drawn.value_range} and the prior {prior.value_range}: use the prior's"
        )
    prior = copy.copy(prior)
    prior.precision = training.precision
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        htransform = HTransform(config, prior.schedule, prior_hash=prior.content_hash())
    if initial is not None:
        for difference in start_from_htransform(htransform, initial):
            warnings.warn(f"the initial h-transform {difference}", UserWarning, stacklevel=2)
    elif options.from_prior:
        htransform.network.start_from(prior.network)
    if htransform.refinement is not None and refinement is not None:
        htransform.refinement.load_state_dict(refinement.state_dict())
    elif refinement is not None or (htransform.refinement is not None and initial is None):
        raise ValueError("config.refinement must be the shape of the refinement that is given, and None without one")
    htransform.precision = training.precision

    count = len(drawn)
    if table is not None:
        seen = config.guidance if config.refinement is None else config.refinement.guidance
        if (table.config.reference, table.config.guidance) != (config.reference, seen):
            kept = f"{table.config.reference} references with {table.config.guidance} residuals"
            raise ValueError(f"the table has {kept}, the h-transform wants {config.reference} and {seen}")
        own = htransform.refinement and htransform.refinement.second
        if table.config.second.split(" ")[0] != (own.content_hash() if own else ""):
            raise ValueError(
                "the table must hold the second reconstructions of the refinement: take the references of its training"
            )
        count, training = table.config.batches, _in_table_batches(training, table.config)

    def matching(net: nn.Module, pairs: Pairs, generator: torch.Generator, tabulated: Start | None = None) -> Tensor:
        t = sample_times(len(pairs.x0), prior.schedule, generator, options.time_power)
        noise = torch.randn(pairs.x0.shape, generator=generator, device=generator.device)
        return denoising_loss(net, htransform, prior, pairs, t, noise, tabulated=tabulated)

    def loss(net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        prior.to(generator.device)  # where the training runs; does nothing once it is there
        if table is None:
            return matching(net, drawn.draw(indices, generator), generator)
        losses = []
        for number in indices.tolist():
            given = table.whole_batch(number).start.each(lambda image: image.to(generator.device))
            pairs = draw_batch(drawn, table.config, number, generator.device)
            losses.append(matching(net, pairs, generator, given))
        return torch.stack(losses).mean()

    identity = drawn.description() | {
        "prior": prior.content_hash(), "h-transform": config.to_dict(), "time_power": options.time_power,
        "initial": initial.content_hash() if initial is not None else options.from_prior,
        "refinement": refinement and refinement.content_hash(), "table": table and table.config.to_dict(),
    }  # fmt: skip
    averaged = fit(htransform, loss, count, training, folder, identity=identity, progress=progress)
    trained = cast(HTransform, averaged.cpu())
    trained.precision = "float32"
    return trained


def _in_table_batches(training: TrainingConfig, table: TableConfig) -> TrainingConfig:
    """The same training with a batch of the table as its unit."""
    if training.batch_size % table.batch_size:
        raise ValueError(
            f"batch_size {training.batch_size} must be a multiple of that of the references, {table.batch_size}"
        )
    return replace(training, batch_size=training.batch_size // table.batch_size)


def start_from_htransform(htransform: HTransform, initial: HTransform) -> list[str]:
    """Copy the weights of a trained h-transform into a new one, which may be for another prior and for more scans.

    Scan features start at zero, so one that had none computes at first what it did; a changed spread is a changed
    parametrisation, which the training has to make up for.

    Args:
        htransform: the new h-transform.
        initial: the trained one.

    Returns:
        What differs, one sentence each.

    Raises:
        ValueError: the two differ in what the network sees or how its output is used.
    """
    own, given = htransform.config.to_dict(), initial.config.to_dict()
    free = ("scan_features", "arc_direction", "spread", "spread_slopes", "tv_iterations", "refinement", "reach")
    fixed = [name for name in own | given if name not in free and own.get(name) != given.get(name)]
    fixed += ["schedule"] if htransform.schedule != initial.schedule else []
    for name in ("scan_features", "arc_direction"):
        fixed += [name] if getattr(initial.config, name) and not getattr(htransform.config, name) else []
    if fixed:
        raise ValueError(f"the initial h-transform has other {', '.join(fixed)}: use its values to start from it")
    weights = with_new_features(initial.state_dict(), htransform)
    if own.get("refinement") != given.get("refinement"):  # its weights come from elsewhere
        weights = {name: value for name, value in weights.items() if not name.startswith("refinement.")}
    missing, _ = htransform.load_state_dict(weights, strict=False)
    missing = [name for name in missing if name.startswith("scan_embedding.")]
    found = [f"is for another prior ({initial.prior_hash[:12]})"] if initial.prior_hash != htransform.prior_hash else []
    found += [f"has another {name}" for name in free[2:] if own.get(name) != given.get(name)]
    if htransform.config.arc_direction and not initial.config.arc_direction:
        found.append("is not conditioned on the direction of limited arcs: it starts at zero")
    return found + (["has no scan features: they start at zero"] if missing else [])
