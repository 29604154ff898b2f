"""The amortised conditional model of chains: the whole prior, fine-tuned to see the motif.

The network is the prior's with two inputs more: where the motif would go, and a mask of its residues. It predicts the
velocity given them. The minimiser of the squared error over pairs is the posterior's denoiser (Batzolis et al. 2021,
arXiv 2111.13606, theorem 1); Didi et al. 2023 (arXiv 2312.09236, section 3) train motif scaffolding in this way. It is
the other end from DEFT: all parameters are trained, and the prior is not evaluated beside the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import Denoiser, ddim
from deft_ct.diffusion.schedule import BetaSchedule, Schedule, Spacing
from deft_ct.diffusion.train import sample_times
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.guided.config import GridConfig, SamplerConfig
from deft_ct.methods.guided.replacement import replaced
from deft_ct.methods.guided.sampling import Need
from deft_ct.methods.supervised.model import TrainedModel
from deft_ct.methods.supervised.walks import TrainedSampler
from deft_ct.networks import BackboneNetwork, BackboneNetworkConfig
from deft_ct.operators.findings import Finding
from deft_ct.operators.projection import Projecting
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import UnsupportedError
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.search_space import Range, SearchSpace
from deft_ct.runtime.seeds import normal_like
from deft_ct.training.pairs import Pairs

_SEEN = 6
"""Channels of what the network sees of a motif: a vector and a mask for each residue."""


@dataclass(frozen=True, kw_only=True)
class AmortisedShape:
    """How the network is built and trained.

    Args:
        schedule: kind of the noise schedule.
        time_power: training times are ``steps * u ** time_power``; above 1 prefers low noise.
        network: shape of the prior's network; the inputs for the motif are added here.

    Raises:
        ValueError: a value is unknown or not positive.
    """

    schedule: BetaSchedule = "linear"
    time_power: float = 2.0
    network: BackboneNetworkConfig = field(default_factory=BackboneNetworkConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.time_power > 0:
            raise ValueError(f"time_power must be positive, got {self.time_power}")


class AmortisedModel(TrainedModel):
    """The velocity network ``v(x_t, t, seen)``."""

    kind = "amortised"
    trained_by = "deft-ct train amortised --data backbones:FILE --initial PRIOR"
    shape_type = AmortisedShape

    def __init__(
        self, shape: AmortisedShape, *, value_range: PriorRange | None = None, card: dict[str, Any] | None = None
    ) -> None:
        super().__init__(shape, value_range=value_range, card=card)
        self.schedule = Schedule(kind=shape.schedule)
        inputs = shape.network.in_channels + _SEEN
        self.network = BackboneNetwork(replace(shape.network, in_channels=inputs, scalars=1))

    @classmethod
    def from_prior(cls, prior: Prior, *, time_power: float = 2.0) -> AmortisedModel:
        """A model that computes what a prior of chains does, until it is trained.

        Raises:
            ValueError: the prior is not one of chains, predicts something else than the velocity, or has a schedule
                with rates of its own.
        """
        network = prior.network
        if not isinstance(network, BackboneNetwork) or network.config.in_channels != 3:
            raise ValueError("an amortised model starts from a prior of backbones")
        if prior.prediction != "v_prediction" or prior.schedule != Schedule(kind=prior.schedule.kind):
            raise ValueError("an amortised model starts from a prior that predicts the velocity on a usual schedule")
        shape = AmortisedShape(schedule=prior.schedule.kind, time_power=time_power, network=network.config)
        made = cls(shape, value_range=prior.value_range)
        made.network.continue_from(network)
        return made

    def forward(self, x_t: Tensor, t: Tensor, seen: Tensor) -> Tensor:
        """The velocity at chains ``x_t`` ``(B, N, 3)`` and times ``t`` ``(B,)``; ``seen`` as in :meth:`seen`."""
        self.count(len(x_t))
        out: Tensor = self.network(torch.cat([x_t, seen], -1), t)
        return out.to(x_t.dtype)

    @torch.no_grad()
    def seen(self, likelihood: Likelihood, x_t: Tensor, t: Tensor) -> Tensor:
        """What the network sees of the data, ``(B, N, 6)``.

        For each residue of the motif the way from ``sqrt(abar) x_t``, the estimate of a prior of independent
        coordinates, to its place in the motif, moved onto this estimate as a rigid body; then the mask. Zero elsewhere.
        """
        signal, _ = self.schedule.coefficients(t, x_t)
        estimate = signal * x_t
        mask = likelihood.operator.data_images(likelihood.y)[:, 0].to(x_t)
        return torch.cat([replaced(likelihood, estimate) - estimate, mask], -1)

    def denoiser(self, likelihood: Likelihood) -> Denoiser:
        """The denoiser given the data of a batch."""

        def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
            times = torch.full((len(x_t),), float(t), device=x_t.device)
            v = self(x_t, times, self.seen(likelihood, x_t, times))
            return self.schedule.x0_eps_from_v(x_t, v, times)

        return denoise

    def check(self, likelihood: Likelihood) -> None:
        """Refuse operators that do not know the nearest chain with their data, or have no mask."""
        operator = likelihood.operator
        named = [image.name for image in operator.feature_images]
        if not isinstance(operator, Projecting) or named != ["mask"]:
            raise UnsupportedError(
                f"{self.kind} needs an operator that knows the nearest chain with its data, such as Motif, and "
                f"{type(operator).__name__} does not: use dps, daps or reddiff"
            )

    def training_loss(self, network: nn.Module, pairs: Pairs, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity."""
        t = sample_times(len(pairs.x0), self.schedule, generator, self.shape.time_power)
        noise = torch.randn(pairs.x0.shape, generator=generator, device=generator.device)
        x_t = self.schedule.add_noise(pairs.x0, noise, t)
        v = network(x_t, t, self.seen(pairs.likelihood, x_t, t))
        return (v - self.schedule.velocity(pairs.x0, noise, t)).square().mean()


@dataclass(frozen=True, kw_only=True)
class AmortisedConfig(GridConfig, SamplerConfig):
    """Settings of :class:`Amortised`.

    Attributes:
        steps: network evaluations for each sample.
        eta: 0 for the deterministic sampler, 1 for the ancestral one.
        grid: as in :class:`~deft_ct.methods.guided.config.GridConfig`.
        batch_size: samples at once; changes memory and speed, not results.
    """

    steps: int = 100
    grid: Spacing = "log_snr"


class Amortised(TrainedSampler):
    """Samples of a prior of chains that was fine-tuned as a whole to see the motif."""

    name: ClassVar[str] = "amortised"
    title: ClassVar[str] = "amortised"
    config_type: ClassVar[type] = AmortisedConfig
    model_type: ClassVar[type[TrainedModel]] = AmortisedModel
    needs: ClassVar[Need] = "projection"
    search_space: ClassVar[SearchSpace] = {"eta": Range(0.0, 1.0)}

    def _check(self, request: Request) -> None:
        shape = request.image_shape
        if len(shape) != 2 or shape[1] != 3:
            raise UnsupportedError(f"{self.name} is for chains of shape (N, 3), and these images are of shape {shape}")
        try:
            likelihood = self._likelihood(request)
        except ValueError as error:
            raise UnsupportedError(f"{self.name} cannot use this model: {error}") from None
        self.model.check(likelihood)

    def _advice(self, request: Request) -> tuple[Finding, ...]:
        return ()

    @torch.no_grad()
    def _estimate(self, request: Request) -> Estimate:
        model: AmortisedModel = self.model
        times = self.config.times(model.schedule)
        likelihood = self._likelihood(request)
        repeated = likelihood.repeat(request.num_samples)
        like = request.y.new_zeros(1, *request.image_shape)

        def walk(part: slice, generators: list[torch.Generator]) -> Tensor:
            start = normal_like(like.expand(len(generators), -1, -1), generators)
            return ddim(
                model.denoiser(repeated[part]), start, model.schedule, times, eta=self.config.eta, generators=generators
            )

        return Estimate(samples=likelihood.to_physical(self._walked(request, walk)))
