"""DEFT with an h-transform that is learned for each measurement, from this measurement alone (stochastic control)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import Denoiser, ddim
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft import HTransform, HTransformConfig, condition_for
from deft_ct.methods.deft.conditioning import check_htransform
from deft_ct.methods.deft.control import ControlConfig, ControlObjective, control_times
from deft_ct.methods.deft.denoiser import conditional_denoiser
from deft_ct.methods.deft.train_control import ControlTraining, finetune_online
from deft_ct.methods.guided.config import SamplerConfig, check_counts, check_positive
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.networks import TimeNetwork, UNetConfig
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import NetworkSource, PriorReconstructor
from deft_ct.runtime.seeds import derive_seed
from deft_ct.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class DEFTOnlineConfig(SamplerConfig):
    """How an h-transform is learned for a measurement, and how its posterior is sampled.

    Args:
        steps: evaluations of the prior on a path, in training and in sampling.
        eta: of the sampling; the training uses the ancestral chain.
        batch_size: samples that are walked at once.
        iterations: optimiser steps for each measurement.
        paths: paths of each optimiser step.
        objective: ``"log-variance"`` or ``"trajectory-balance"``.
        learning_rate: peak rate.
        reference: name of the initial reconstruction. Not used with a given h-transform.
        guidance: name of the guidance. Not used with a given h-transform.
        spread: typical error of the initial reconstruction in the prior's range. Not used with a given
            h-transform.
        channels: features of the h-transform network. Not used with a given h-transform.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 25
    iterations: int = 200
    paths: int = 8
    objective: ControlObjective = "log-variance"
    learning_rate: float = 1e-3
    reference: str = "tv"
    guidance: str = "fbp"
    spread: float = 0.04
    channels: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(iterations=self.iterations, channels=self.channels)
        check_positive(learning_rate=self.learning_rate)
        ControlConfig(objective=self.objective, steps=self.steps, paths=self.paths)
        HTransformConfig(guidance=self.guidance, reference=self.reference, spread=self.spread)


class DEFTOnline(PriorReconstructor):
    """Learns an h-transform for every measurement, without a clean image, and samples with it.

    Args:
        prior: the unconditional model, frozen.
        htransform: every measurement starts from this h-transform; None starts from the closed form for the initial
            reconstruction.
        config: settings.

    Raises:
        ValueError: the h-transform belongs to another prior.
    """

    name = "deft_online"
    title = "DEFT online"
    config_type = DEFTOnlineConfig

    def __init__(
        self, prior: Prior, htransform: HTransform | None = None, config: DEFTOnlineConfig | None = None
    ) -> None:
        super().__init__(prior, config or DEFTOnlineConfig())
        if htransform is not None and htransform.prior_hash != prior.content_hash():
            raise ValueError("this h-transform was trained for another prior: load the matching pair")
        self.htransform = htransform

    @classmethod
    def from_networks(cls, config: Any, networks: NetworkSource) -> Self:
        """Build the method with the prior, and with the h-transform if one was named."""
        return cls(networks.load_prior(), networks.load_htransform(required=False), config)

    @property
    def needs_samples(self) -> bool:
        """The reconstruction is the mean of the samples."""
        return True

    def describe(self) -> dict[str, Any]:
        """Hashes of the prior and of the h-transform that every measurement starts from, if there is one."""
        given = self.htransform
        return super().describe() | {"htransform_sha256": None if given is None else given.content_hash()}

    def _check(self, request: Request) -> None:
        super()._check(request)
        likelihood = request.measurement.likelihood(request.y, self.prior.value_range)
        config = self._head_config() if self.htransform is None else self.htransform.config
        check_htransform(self.name, config, self.image_shape(request), likelihood)

    def _estimate(self, request: Request) -> Estimate:
        samples = []
        for i, key in enumerate(request.image_ids):
            part = slice(i, i + 1)
            likelihood = request.measurement[part].likelihood(request.y[part], self.prior.value_range)
            with torch.enable_grad():
                head = self.learn(likelihood, seed=derive_seed(request.seed, "deft_online head", key))
            single = replace(request, y=request.y[part], measurement=request.measurement[part], image_ids=[key])
            samples.append(Learned(self.prior, self.config, head)._estimate(single).samples)
        return Estimate(samples=torch.cat([drawn for drawn in samples if drawn is not None]))

    def learn(self, likelihood: Likelihood, *, seed: int) -> HTransform:
        """The h-transform of one measurement, which :meth:`reconstruct` would use.

        Args:
            likelihood: one row of data, in the prior's range.
            seed: of all randomness of the training.
        """
        config = self.config
        given = self.htransform
        return finetune_online(
            self.prior,
            likelihood,
            ControlTraining(
                config=given.config if given is not None else self._head_config(),
                control=ControlConfig(objective=config.objective, steps=config.steps, paths=config.paths),
                training=TrainingConfig(
                    steps=config.iterations, batch_size=1, learning_rate=config.learning_rate,
                    warmup=min(10, config.iterations), ema_decay=0.95, seed=seed % 2**31,
                ),
                initial=given,
            ),
        )  # fmt: skip

    def _head_config(self) -> HTransformConfig:
        config = self.config
        network = self.prior.network
        shape = network.config if isinstance(network, TimeNetwork) else UNetConfig(patch=1)
        return HTransformConfig(
            guidance=config.guidance, reference=config.reference, spread=config.spread, channels=self.prior.channels,
            network=shape.small(config.channels),
        )  # fmt: skip


class Learned(PosteriorSampler):
    """Sampling of the controlled chain with an h-transform that stochastic control has trained.

    Args:
        prior: the unconditional model.
        config: steps, eta and batch_size are used.
        head: h-transform network, trained for this prior.
    """

    name = "deft_online"
    config_type = DEFTOnlineConfig

    def __init__(self, prior: Prior, config: DEFTOnlineConfig, head: HTransform) -> None:
        super().__init__(prior, config)
        self.head = head

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        times = control_times(self.prior.schedule, self.config.steps)
        condition = condition_for(likelihood, self.head).repeat(count)

        def walk(chunk: Chunk) -> Tensor:
            steered = conditional_denoiser(self.prior, self.head, chunk.likelihood, condition[chunk.part])
            return ddim(
                ends_free(steered, self.prior, times[-1]), chunk.start, self.prior.schedule, times,
                eta=self.config.eta, generators=chunk.generators, callback=chunk.tick,
            )  # fmt: skip

        return walk


def ends_free(steered: Denoiser, prior: Prior, last: float) -> Denoiser:
    """A denoiser that leaves the last evaluation to the prior, as the controlled chain of the training does."""

    def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
        return prior.predict(x_t, t) if t == last else steered(x_t, t)

    return denoise
