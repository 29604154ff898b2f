"""Importance fine-tuning of an h-transform in a problem whose posterior is known.

In the manner of Denker, Padhy, Vargas and Hertrich 2025 (arXiv 2502.04468), written from the paper's description. A
round draws paths with the averaged network, weights them by ``exp(-C)`` with the cost ``C`` of
:mod:`deft_ct.methods.deft.control`, resamples them, and trains the network on their final images by the denoising loss.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deft_ct.diffusion.train import sample_times
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft import HTransform, HTransformConfig, condition_for
from deft_ct.methods.deft.control import control_times, draw_paths
from deft_ct.methods.deft.path_weights import effective_number, resample, tempered_weights
from deft_ct.methods.deft.train import denoising_loss
from deft_ct.methods.deft.train_control import StoredMeasurements
from deft_ct.training.pairs import Pairs
from deft_ct.workflows.experiments.known_posterior import KnownPosterior

PATH_STEPS = 16
"""Network evaluations on a path."""


@dataclass(frozen=True, kw_only=True)
class ImportanceConfig:
    """Settings of the fine-tuning.

    Args:
        paths: paths of each measurement in a round.
        share: effective share of the paths after tempering, between 0 and 1; None trains on the true images instead.
        updates: denoising steps in a round.
        batch_size: images in a denoising step.
        learning_rate: of AdamW.
        ema_decay: decay of the averaged weights.
    """

    paths: int = 16
    share: float | None = 0.125
    updates: int = 100
    batch_size: int = 32
    learning_rate: float = 3e-3
    ema_decay: float = 0.97


def untrained(world: KnownPosterior, config: HTransformConfig) -> HTransform:
    """An h-transform with random weights that depend on the seed of the problem alone."""
    torch.manual_seed(world.seed)
    return HTransform(config, world.prior.schedule, prior_hash=world.prior.content_hash()).eval()


def costed_paths(
    world: KnownPosterior, htransform: HTransform, likelihood: Likelihood, paths: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Paths of each measurement of a likelihood.

    Returns:
        Their final images ``(B * paths, 1, H, W)`` and costs ``(B, paths)``.
    """
    drawn = draw_paths(
        htransform, world.prior, likelihood.repeat(paths), condition_for(likelihood, htransform).repeat(paths),
        control_times(world.prior.schedule, PATH_STEPS), guidance=htransform.guidance,
        normal=lambda x: torch.randn(x.shape, generator=generator),
    )  # fmt: skip
    return drawn.x0, (drawn.log_ratio - drawn.reward).reshape(-1, paths)


def path_statistics(world: KnownPosterior, htransform: HTransform, y: Tensor, paths: int) -> dict[str, float]:
    """How degenerate the weights of the paths are: medians over the measurements ``y``.

    Returns:
        Number of paths, their effective number, the standard deviation of the cost, and the exponent that leaves half
        of the paths.
    """
    generator = torch.Generator().manual_seed(1)
    costs = torch.cat([costed_paths(world, htransform, world.likelihood(row[None]), paths, generator)[1] for row in y])
    return {
        "paths": paths,
        "effective_paths": float(effective_number((-costs).softmax(1)).median()),
        "cost_std": float(costs.std(1).median()),
        "exponent_half": float(tempered_weights(costs, 0.5)[1].median()),
    }


def importance_finetuning(
    world: KnownPosterior, initial: HTransform, config: ImportanceConfig, seconds: float
) -> HTransform:
    """Train an h-transform on the training measurements for about ``seconds`` of processor time.

    A round that has begun is finished.

    Args:
        world: prior and measurements.
        initial: is not changed.
        config: of the fine-tuning.
        seconds: processor time.

    Returns:
        The network with averaged weights.
    """
    began, generator = time.process_time(), torch.Generator().manual_seed(world.seed)
    network = copy.deepcopy(initial).train()
    averaged, done = copy.deepcopy(network), 0
    pool, schedule = world.training, world.prior.schedule
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0)
    measured = StoredMeasurements(world.likelihood(world.data(world.training, "training")))
    while time.process_time() - began < seconds:
        if config.share is not None:
            images = []
            for part in torch.arange(len(measured)).split(4):
                x0, costs = costed_paths(world, averaged, measured.likelihood(part), config.paths, generator)
                images.append(x0[resample(tempered_weights(costs, config.share)[0], generator)])
            pool = torch.cat(images)
        for _ in range(config.updates):
            rows = torch.randint(len(pool), (config.batch_size,), generator=generator)
            t = sample_times(config.batch_size, schedule, generator, 1.0)
            noise = torch.randn(pool[rows].shape, generator=generator)
            pairs = Pairs(x0=pool[rows], likelihood=measured.likelihood(rows // (len(pool) // len(measured))))
            denoising_loss(network, network, world.prior, pairs, t, noise).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            decay = min(config.ema_decay, (1 + done) / (10 + done))
            for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
                mean.data.lerp_(value.data, 1 - decay)
    return averaged.eval()
