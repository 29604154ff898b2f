"""Training of the h-transform by denoising score matching (DEFT section 3, arXiv 2406.01781).

Every step simulates new measurements of its slices, so the head is amortised over data and noise. The prior is
evaluated without a graph: it is neither trained nor differentiated.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.train import sample_times
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft.conditioning import condition_for
from deft_ct.methods.deft.guidance import guidance_at
from deft_ct.methods.deft.htransform import HTransform, HTransformConfig
from deft_ct.methods.deft.initial_table import ReferenceTable, TableConfig, draw_batch
from deft_ct.methods.deft.refinement import Refinement
from deft_ct.methods.deft.scan_embedding import with_new_features
from deft_ct.networks import UNet
from deft_ct.training import TrainingConfig, Validation, fit
from deft_ct.training.pairs import Pairs, PairSource, ScannedSlices, simulate_unit_pixel

__all__ = ["Pairs", "denoising_loss", "simulate_pairs", "start_from_head", "train_htransform"]


def simulate_pairs(
    hu: Tensor, pixel_mm: Tensor, measurement: Measurement, prior: Prior, *, seed: int, refine: int = 2
) -> Pairs:
    """:func:`~deft_ct.training.pairs.simulate_unit_pixel` with images in the range of a prior.

    Args:
        hu: ``(B, 1, H, W)``.
        pixel_mm: ``(B,)``.
        measurement: with a pixel of 1 mm and a Hounsfield scale.
        prior: gives the range of the images.
        seed: of the noise.
        refine: grid refinement of the simulation.

    Raises:
        ValueError: the prior or the measurement has no HU.
    """
    return simulate_unit_pixel(hu, pixel_mm, measurement, _range_of(prior), seed=seed, refine=refine)


def _range_of(prior: Prior) -> PriorRange:
    if prior.value_range is None:
        raise ValueError("training on CT needs a prior with a HU range")
    return prior.value_range


def denoising_loss(
    network: nn.Module,
    htransform: HTransform,
    prior: Prior,
    pairs: Pairs,
    t: Tensor,
    noise: Tensor,
    *,
    tabulated: tuple[Tensor, Tensor] | None = None,
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
        tabulated: references of the pairs, see ``condition_for``.

    Returns:
        Scalar loss.
    """
    likelihood, x0 = pairs.likelihood, pairs.x0
    x_t = prior.schedule.add_noise(x0, noise, t)
    with torch.no_grad():
        tweedie, eps = prior.predict(x_t, t)
        guidance = guidance_at(likelihood, tweedie, t, htransform)
        condition = condition_for(likelihood, htransform, tabulated=tabulated)
    x0_y, eps_y = network(x_t, t, tweedie, eps, guidance, condition)
    if htransform.config.reference == "none":
        return (eps_y - noise).square().mean()
    scale = htransform.noise_levels(t, x_t, condition)[3]
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
    initial: HTransform | None = None,
    refinement: Refinement | None = None,
    table: ReferenceTable | None = None,
    weights: Sequence[float] | None = None,
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
        initial: go on from the weights of this head instead, see :func:`start_from_head`.
        refinement: of the reference, trained before; its shape is in ``config``, and it stays as it is.
        table: references computed before, of the same slices, measurements and weights; a step then takes whole
            batches of it instead of simulating new data. None computes the references at every step.
        weights: how often each measurement is drawn, relative to the others.
        validation: scores the averaged head.
        progress: show a progress bar.

    Returns:
        The head with the averaged weights.

    Raises:
        ValueError: a measurement has no Hounsfield scale, or ``initial`` is of another kind.
    """
    prior = copy.copy(prior)
    prior.precision = training.network_precision
    drawn = PairSource(source, measurements, _range_of(prior), refine=refine, weights=weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        htransform = HTransform(config, prior.schedule, prior_hash=prior.content_hash())
    if initial is not None:
        for difference in start_from_head(htransform, initial):
            warnings.warn(f"the initial h-transform {difference}", UserWarning, stacklevel=2)
    elif from_prior:
        _start_from_prior(htransform, prior)
    if htransform.refinement is not None and refinement is not None:
        htransform.refinement.load_state_dict(refinement.state_dict())
    elif refinement is not None or (htransform.refinement is not None and initial is None):
        raise ValueError("config.refinement must be the shape of the refinement that is given, and None without one")
    htransform.precision = training.network_precision

    count = len(source)
    if table is not None:
        seen = config.guidance if config.refinement is None else config.refinement.guidance
        if (table.config.reference, table.config.guidance) != (config.reference, seen):
            kept = f"{table.config.reference} references with {table.config.guidance} residuals"
            raise ValueError(f"the table has {kept}, the head wants {config.reference} and {seen}")
        count, training = table.config.batches, _in_table_batches(training, table.config)

    def matching(
        net: nn.Module, pairs: Pairs, generator: torch.Generator, tabulated: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        t = sample_times(len(pairs.x0), prior.schedule, generator, time_power)
        noise = torch.randn(pairs.x0.shape, generator=generator, device=generator.device)
        return denoising_loss(net, htransform, prior, pairs, t, noise, tabulated=tabulated)

    def loss(net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        prior.to(generator.device)  # where the training runs; does nothing once it is there
        if table is None:
            return matching(net, drawn.draw(indices, generator), generator)
        losses = []
        for number in indices.tolist():
            known = table.whole_batch(number)
            given = known.reference.to(generator.device), known.remainder.to(generator.device)
            pairs = draw_batch(drawn, table.config, number, generator.device)
            losses.append(matching(net, pairs, generator, given))
        return torch.stack(losses).mean()

    identity = drawn.description() | {
        "prior": prior.content_hash(), "h-transform": config.to_dict(), "time_power": time_power,
        "initial": initial.content_hash() if initial is not None else from_prior,
        "refinement": refinement and refinement.content_hash(), "table": table and table.config.to_dict(),
    }  # fmt: skip
    averaged = fit(
        htransform, loss, count, training, folder, validation=validation, identity=identity, progress=progress
    )
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


def start_from_head(htransform: HTransform, initial: HTransform) -> list[str]:
    """Copy the weights of a trained head into a new one, which may be for another prior and for more scans.

    Scan features start at zero, so a head that had none computes at first what it did; a changed spread is a changed
    parametrisation, which the training has to make up for.

    Args:
        htransform: the new head.
        initial: the trained one.

    Returns:
        What differs, one sentence each.

    Raises:
        ValueError: the two differ in what the network sees or how its output is used.
    """
    own, given = htransform.config.to_dict(), initial.config.to_dict()
    free = ("scan_features", "arc_direction", "spread", "spread_slopes", "tv_iterations", "refinement")
    fixed = [name for name in own | given if name not in free and own.get(name) != given.get(name)]
    fixed += ["schedule"] if htransform.schedule != initial.schedule else []
    for name in ("scan_features", "arc_direction"):
        fixed += [name] if getattr(initial.config, name) and not getattr(htransform.config, name) else []
    if fixed:
        raise ValueError(f"the initial h-transform has other {', '.join(fixed)}: use its values to go on from it")
    missing, _ = htransform.load_state_dict(with_new_features(initial.state_dict(), htransform), strict=False)
    missing = [name for name in missing if name.startswith("scan_embedding.")]
    found = [f"is for another prior ({initial.prior_hash[:12]})"] if initial.prior_hash != htransform.prior_hash else []
    found += [f"has another {name}" for name in free[2:] if own.get(name) != given.get(name)]
    if htransform.config.arc_direction and not initial.config.arc_direction:
        found.append("is not told where limited arcs lie: this starts at zero")
    return found + (["has no scan features: they start at zero"] if missing else [])


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
