"""A conditional diffusion model, trained from scratch for one kind of scan.

The network sees ``x_t`` and a quick reconstruction of the data and predicts the velocity (Salimans and Ho 2022, arXiv
2202.00512). The minimiser of the squared error over pairs is the posterior's denoiser (Batzolis et al. 2021, arXiv
2111.13606, theorem 1). It is the baseline for DEFT: what the same data give without a prior to start from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deft_ct.diffusion.samplers import Denoiser, ddim
from deft_ct.diffusion.schedule import Schedule
from deft_ct.diffusion.train import sample_times
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.guided.config import GridConfig, SamplerConfig
from deft_ct.methods.initial import Reference, check_reference, reference_reconstruction
from deft_ct.methods.supervised.model import TrainedModel, image_network
from deft_ct.methods.supervised.walks import TrainedSampler
from deft_ct.networks import UNetConfig
from deft_ct.reconstruction import Estimate, Request
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.search_space import Range, SearchSpace
from deft_ct.runtime.seeds import normal_like
from deft_ct.training.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class ConditionalShape:
    """What the network sees and how it is built.

    Args:
        reference: the reconstruction that stands for the data, ``"fbp"`` or ``"tv"``.
        residual: diffuse ``(x - r) / spread`` with the quick reconstruction ``r`` instead of the image itself. Training
            is then faster ("predict and refine", Whang et al. 2022, arXiv 2112.02475).
        spread: typical error of the quick reconstruction in the value range.
        time_power: training times are ``steps * u ** time_power``; above 1 prefers low noise.
        network: shape of the U-Net; channels in and out are set here.

    Raises:
        ValueError: a value is unknown or not positive.
    """

    reference: Reference = "fbp"
    residual: bool = True
    spread: float = 0.1
    time_power: float = 1.0
    network: UNetConfig = field(default_factory=lambda: UNetConfig(channels=(64, 96, 128)))

    def __post_init__(self) -> None:
        check_fields(self)
        check_reference(self.reference)
        if not (self.time_power > 0 and self.spread > 0):
            raise ValueError(f"time_power and spread must be positive, got {self.time_power} and {self.spread}")


class ConditionalModel(TrainedModel):
    """The velocity network ``v(z_t, t, r)`` on the linear schedule of DDPM; ``z`` is the image, or its residual."""

    kind = "conditional"
    shape_type = ConditionalShape

    def __init__(
        self, shape: ConditionalShape, *, value_range: PriorRange | None = None, card: dict[str, Any] | None = None
    ) -> None:
        super().__init__(shape, value_range=value_range, card=card)
        self.schedule = Schedule()
        self.network = image_network(shape.network, 2)

    def forward(self, x_t: Tensor, t: Tensor, reference: Tensor) -> Tensor:
        """The velocity at ``x_t`` ``(B, 1, H, W)`` and times ``t`` ``(B,)``."""
        self.count(len(x_t))
        return self.network(torch.cat([x_t, reference], 1), t).to(x_t.dtype)

    def latent(self, x0: Tensor, reference: Tensor) -> Tensor:
        """What is diffused, for images in the value range."""
        return (x0 - reference) / self.shape.spread if self.shape.residual else x0

    def image(self, latent: Tensor, reference: Tensor) -> Tensor:
        """The inverse of :meth:`latent`."""
        return reference + self.shape.spread * latent if self.shape.residual else latent

    def denoiser(self, reference: Tensor) -> Denoiser:
        """The denoiser of the diffused quantity, given the quick reconstructions of a batch."""

        def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
            times = torch.full((len(x_t),), float(t), device=x_t.device)
            return self.schedule.x0_eps_from_v(x_t, self(x_t, times, reference), times)

        return denoise

    def training_loss(self, network: nn.Module, pairs: Pairs, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity."""
        reference = reference_reconstruction(pairs.likelihood, self.shape.reference)
        x0 = self.latent(pairs.x0, reference)
        t = sample_times(len(x0), self.schedule, generator, self.shape.time_power)
        noise = torch.randn(x0.shape, generator=generator, device=generator.device)
        v = network(self.schedule.add_noise(x0, noise, t), t, reference)
        return (v - self.schedule.velocity(x0, noise, t)).square().mean()


@dataclass(frozen=True, kw_only=True)
class ConditionalConfig(GridConfig, SamplerConfig):
    """Settings of :class:`Conditional`."""

    steps: int = 20


class Conditional(TrainedSampler):
    """Samples of a conditional diffusion model, by DDIM."""

    name: ClassVar[str] = "conditional"
    title: ClassVar[str] = "conditional diffusion"
    config_type: ClassVar[type] = ConditionalConfig
    model_type: ClassVar[type[TrainedModel]] = ConditionalModel
    search_space: ClassVar[SearchSpace] = {"steps": Range(5, 50), "eta": Range(0.0, 1.0)}

    @torch.no_grad()
    def _estimate(self, request: Request) -> Estimate:
        model: ConditionalModel = self.model
        times = self.config.times(model.schedule)
        likelihood = self._likelihood(request)
        references = reference_reconstruction(likelihood, model.shape.reference)
        references = references.repeat_interleave(request.num_samples, 0)

        def walk(part: slice, generators: list[torch.Generator]) -> Tensor:
            reference = references[part]
            latent = ddim(
                model.denoiser(reference), normal_like(reference, generators), model.schedule, times,
                eta=self.config.eta, generators=generators,
            )  # fmt: skip
            return model.image(latent, reference)

        return Estimate(samples=likelihood.to_physical(self._walked(request, walk)))
