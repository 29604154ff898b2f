"""Image-to-image Schroedinger bridge (Liu et al. 2023, arXiv 2302.05872) from a quick reconstruction to the truth.

With the variance ``s(t) = int_0^t beta`` gained since the clean image and ``r(t) = int_t^1 beta`` left to the degraded
one, the bridge between a pair is Gaussian (their eq. 11):
``x_t ~ N(r / (s + r) x_0 + s / (s + r) x_1, s r / (s + r) I)``. The network is trained to predict ``(x_t - x_0) /
sqrt(s)``, eq. 12. A step from ``t`` to an earlier time draws from the same law between the estimate of ``x_0`` and
``x_t``. This is algorithm 2, with ``r`` replaced by the variance between the two times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.guided.config import StepsConfig
from deft_ct.methods.initial import Reference, check_reference, reference_reconstruction
from deft_ct.methods.supervised.model import TrainedModel, image_network
from deft_ct.methods.supervised.walks import TrainedSampler
from deft_ct.networks import UNetConfig
from deft_ct.reconstruction import Estimate, Request
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.search_space import Choice, Range, SearchSpace
from deft_ct.runtime.seeds import normal_like
from deft_ct.training.pairs import Pairs

FIRST_TIME = 1e-3
"""Training starts here: at 0 the network's target would be 0 / 0."""


@dataclass(frozen=True, kw_only=True)
class I2SBShape:
    """The bridge, and how its network is built.

    Args:
        reference: where the bridge starts, ``"fbp"`` or ``"tv"``.
        beta_min: diffusion at both ends.
        beta_max: diffusion in the middle; its root grows linearly in between (the paper's symmetric schedule).
        see_reference: whether the network sees the quick reconstruction in addition to ``x_t``.
        network: shape of the U-Net; channels in and out are set here.

    Raises:
        ValueError: a value is unknown or out of range.
    """

    reference: Reference = "fbp"
    beta_min: float = 0.1
    beta_max: float = 0.3
    see_reference: bool = True
    network: UNetConfig = field(default_factory=lambda: UNetConfig(channels=(64, 96, 128)))

    def __post_init__(self) -> None:
        check_fields(self)
        check_reference(self.reference)
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"need 0 < beta_min < beta_max, got {self.beta_min} and {self.beta_max}")


@dataclass(frozen=True)
class Bridge:
    """The noise of the bridge.

    Args:
        beta_min: diffusion at both ends.
        beta_max: diffusion in the middle.
    """

    beta_min: float
    beta_max: float

    @property
    def total(self) -> float:
        """Variance of the whole way, ``int_0^1 beta``."""
        low, high = self.beta_min**0.5, self.beta_max**0.5
        return (low * low + low * high + high * high) / 3

    def variance(self, t: Tensor) -> Tensor:
        """``int_0^t beta`` at times in [0, 1], float64 of the shape of ``t``."""
        time = t.to(torch.float64)
        low, high = self.beta_min**0.5, self.beta_max**0.5

        def half(s: Tensor) -> Tensor:  # int_0^s (low + 2 s (high - low))^2 ds
            return ((low + 2 * s * (high - low)) ** 3 - low**3) / (6 * (high - low))

        return torch.where(time <= 0.5, half(time.clamp_max(0.5)), self.total - half((1 - time).clamp_max(0.5)))

    def between(self, x0: Tensor, x1: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the bridge between two images.

        Args:
            x0: image at the clean side, ``(B, C, H, W)``.
            x1: image at the noisy side.
            near: variance between the clean side and the wanted point, ``(B,)`` or scalar, float64.
            far: variance between the wanted point and the noisy side.
        """
        whole = (near + far).clamp_min(1e-300)
        weight = (far / whole).reshape(-1, 1, 1, 1).to(x0.dtype)
        spread = (near * far / whole).sqrt().reshape(-1, 1, 1, 1).to(x0.dtype)
        return weight * x0 + (1 - weight) * x1, spread


class I2SBModel(TrainedModel):
    """The network of the bridge: ``(x_t - x_0) / sqrt(s(t))`` from ``x_t``."""

    kind = "i2sb"
    shape_type = I2SBShape

    def __init__(
        self, shape: I2SBShape, *, value_range: PriorRange | None = None, card: dict[str, Any] | None = None
    ) -> None:
        super().__init__(shape, value_range=value_range, card=card)
        self.bridge = Bridge(shape.beta_min, shape.beta_max)
        self.network = image_network(shape.network, 2 if shape.see_reference else 1)

    def forward(self, x_t: Tensor, t: Tensor, reference: Tensor) -> Tensor:
        """The scaled distance to the clean image at ``x_t`` ``(B, 1, H, W)`` and times ``t`` ``(B,)`` in [0, 1]."""
        self.count(len(x_t))
        seen = torch.cat([x_t, reference], 1) if self.shape.see_reference else x_t
        return self.network(seen, 1000 * t).to(x_t.dtype)

    def training_loss(self, network: nn.Module, pairs: Pairs, generator: torch.Generator) -> Tensor:
        """Mean squared error of the scaled distance, at stratified times."""
        x0 = pairs.x0
        reference = reference_reconstruction(pairs.likelihood, self.shape.reference)
        device, count = generator.device, len(x0)
        u = (torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)) / count
        t = FIRST_TIME + (1 - FIRST_TIME) * u[torch.randperm(count, generator=generator, device=device)]
        near = self.bridge.variance(t)
        mean, spread = self.bridge.between(x0, reference, near, self.bridge.total - near)
        x_t = mean + spread * torch.randn(x0.shape, generator=generator, device=device)
        target = (x_t - x0) / near.sqrt().reshape(-1, 1, 1, 1).to(x0.dtype)
        return (network(x_t, t, reference) - target).square().mean()

    def denoise(self, x_t: Tensor, t: float, reference: Tensor) -> Tensor:
        """The estimate of the clean image."""
        times = torch.full((len(x_t),), t, device=x_t.device)
        size = self.bridge.variance(times[:1]).sqrt().to(x_t.dtype)
        return x_t - size * self(x_t, times, reference)


@dataclass(frozen=True, kw_only=True)
class I2SBConfig(StepsConfig):
    """Settings of :class:`I2SB`.

    Attributes:
        steps: network evaluations for each sample.
        stochastic: False leaves the noise of every step out: the optimal-transport path of their section 3.2, one
            answer for each measurement.
        batch_size: samples at once; changes memory and speed, not results.
    """

    steps: int = 10
    stochastic: bool = True


class I2SB(TrainedSampler):
    """The Schroedinger bridge from FBP (or TV) to the image."""

    name: ClassVar[str] = "i2sb"
    config_type: ClassVar[type] = I2SBConfig
    model_type: ClassVar[type[TrainedModel]] = I2SBModel
    search_space: ClassVar[SearchSpace] = {"steps": Range(1, 50), "stochastic": Choice((True, False))}

    @torch.no_grad()
    def _estimate(self, request: Request) -> Estimate:
        likelihood = self._likelihood(request)
        references = reference_reconstruction(likelihood, self.model.shape.reference)
        references = references.repeat_interleave(request.num_samples, 0)
        samples = self._walked(request, lambda part, generators: self._walk(references[part], generators))
        return Estimate(samples=likelihood.to_physical(samples))

    def _walk(self, reference: Tensor, generators: list[torch.Generator]) -> Tensor:
        model: I2SBModel = self.model
        times = torch.linspace(1, 0, self.config.steps + 1, dtype=torch.float64)
        variance = model.bridge.variance(times).to(reference.device)
        x = reference
        for k, t in enumerate(times[:-1].tolist()):
            x0 = model.denoise(x, t, reference)
            x, spread = model.bridge.between(x0, x, variance[k + 1], variance[k] - variance[k + 1])
            if self.config.stochastic and k + 1 < self.config.steps:
                x = x + spread * normal_like(x, generators)
        return x
