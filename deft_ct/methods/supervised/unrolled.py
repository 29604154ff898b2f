"""An unrolled reconstruction: a few U-Nets, each told what its image does not yet explain of the data.

Each stage ``x + s f(x, P(y - A x), A^T w (y - A x), memory, scan)`` sees the image so far, its data residual through
the pseudo-inverse ``P`` and through the weighted adjoint, and what the stages before left for it. The stages have their
own weights and are trained together. The scheme is that of learned iterative reconstruction (Adler and Oektem 2017,
doi:10.1088/1361-6420/aa9581) with U-Nets in the place of small networks (Genzel et al. 2022, doi:10.1088/1361-6420/
ac8f91). The networks are told the scan, so one set of weights serves any number of views, arc, dose and image size.

A second, small network estimates how wrong the image is: the logarithm of the standard deviation of each pixel. It is
trained by maximum likelihood, on images that the stages were not trained on (Nix and Weigend 1994,
doi:10.1109/ICNN.1994.374138).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from deft_ct.measurement.data_term import per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.classical.common import linear
from deft_ct.methods.supervised.direct import DirectReconstructor
from deft_ct.methods.supervised.model import TrainedModel, check_unrolled
from deft_ct.networks import UNetConfig
from deft_ct.operators.linear import LinearOperator
from deft_ct.training.pairs import Pairs

FEATURES = 7
"""Numbers that describe a scan: those of ``Operator.features`` and the strength of the data, see ``_described``."""
EMBEDDING = 128
TIME = 999.0
"""Constant input of the time embedding of the networks, which have no time here."""
STAGE_NETWORK = UNetConfig(
    patch=2, channels=(48, 64, 96, 96), attention=(False,) * 4, norm_groups=8, head_channels=16, scale_shift=True
)
SPREAD_NETWORK = UNetConfig(
    patch=4, channels=(48, 64, 64), attention=(False,) * 3, norm_groups=8, head_channels=16, scale_shift=True
)


@dataclass(frozen=True, kw_only=True)
class UnrolledShape:
    """How the reconstruction is built.

    Args:
        stages: U-Nets, one after the other.
        memory: images that are carried from one stage to the next.
        spread: typical error of the start in the value range; scales what the networks put out.
        network: shape of each U-Net; its channels in and out are set from the rest.
        spread_network: shape of the network of the pixel-wise error; None for none.

    Raises:
        ValueError: a value is not positive.
    """

    stages: int = 3
    memory: int = 4
    spread: float = 0.1
    network: UNetConfig = field(default_factory=lambda: STAGE_NETWORK)
    spread_network: UNetConfig | None = field(default_factory=lambda: SPREAD_NETWORK)

    def __post_init__(self) -> None:
        if self.stages < 1 or self.memory < 1 or not self.spread > 0:
            raise ValueError(f"stages, memory and spread must be positive, got {self}")


class Unrolled(NamedTuple):
    """What the stages leave behind; images in the value range.

    Attributes:
        images: after each stage, ``(B, 1, H, W)``, the result last.
        residual: pseudo-inverse of the last residual that a stage saw, ``(B, 1, H, W)``.
        memory: ``(B, memory, H, W)``.
        embedded: features of the scan, ``(B, FEATURES)``.
    """

    images: list[Tensor]
    residual: Tensor
    memory: Tensor
    embedded: Tensor


class UnrolledModel(TrainedModel):
    """The stages and the network of the error; see the module."""

    kind = "unrolled"
    shape_type = UnrolledShape

    def __init__(
        self, shape: UnrolledShape, *, value_range: PriorRange | None = None, card: dict[str, Any] | None = None
    ) -> None:
        super().__init__(shape, value_range=value_range, card=card)
        sizes = shape.network.with_channels(3 + shape.memory, 1 + shape.memory)
        self.stages = nn.ModuleList(_Conditioned(sizes) for _ in range(shape.stages))
        self.spread_network: _Conditioned | None = None
        if shape.spread_network is not None:
            self.spread_network = _Conditioned(shape.spread_network.with_channels(3 + shape.memory, 1))

    def forward(self, likelihood: Likelihood) -> Unrolled:
        """Reconstruct from data with one channel, in the value range.

        Raises:
            TypeError: the operator is not linear.
        """
        operator = linear(self.kind, likelihood.operator)
        to_physical, spread = likelihood.to_physical, self.shape.spread
        self.count(len(likelihood.y))
        scan, norm = _described(likelihood, operator)
        weights = likelihood.weights / likelihood.weights.flatten(1).mean(1).reshape(-1, 1, 1, 1)
        with torch.autocast(likelihood.y.device.type, enabled=False):
            x = to_physical.inverse(operator.first_guess(likelihood.y))
        memory = x.new_zeros((len(x), self.shape.memory, *x.shape[-2:]))
        images: list[Tensor] = []
        residual = x
        for stage in self.stages:
            with torch.autocast(x.device.type, enabled=False):  # line integrals stay in float32
                missing = likelihood.y - operator(to_physical(x))
                residual = operator.pseudo_inverse(missing) / to_physical.scale
                gradient = operator.adjoint(weights * missing) / (norm**2 * to_physical.scale)
            seen = torch.cat([x, residual / spread, gradient / spread, memory], 1)
            step, memory = stage(seen, scan).float().split([1, self.shape.memory], 1)
            x = x + spread * step
            images.append(x)
        return Unrolled(images, residual, memory, scan)

    def deviation(self, found: Unrolled) -> Tensor:
        """Standard deviation of each pixel of the result, ``(B, 1, H, W)`` in the value range.

        Raises:
            TypeError: the model has no network for it.
        """
        if self.spread_network is None:
            raise TypeError("this unrolled model has no network of the error: shape.spread_network is None")
        spread, image = self.shape.spread, found.images[-1]
        change = (image - found.images[0]) / spread
        seen = torch.cat([image, found.residual / spread, change, found.memory], 1)
        return (0.1 * spread) * self.spread_network(seen, found.embedded).float().clamp(-6, 6).exp()

    def check(self, likelihood: Likelihood) -> None:
        """Refuse operators that are not linear or do not describe themselves, and data not of one channel."""
        check_unrolled(self.kind, likelihood, told_scan=True)

    def training_loss(self, network: nn.Module, pairs: Pairs, generator: torch.Generator) -> Tensor:
        """Mean logarithm of the squared error of each image after each stage, the last one with the most weight.

        The logarithm makes a per cent of a small error count as much as one of a large error, so noisy and sparse scans
        do not take all of the capacity.
        """
        return staged_loss(network(pairs.likelihood).images, pairs.x0)


def staged_loss(images: Sequence[Tensor], x0: Tensor, *, fade: float = 0.25) -> Tensor:
    """Weighted mean over the stages of the mean logarithm of the squared error, ``fade`` times less a stage before."""
    weights = [fade ** (len(images) - 1 - k) for k in range(len(images))]
    losses = [((image - x0).square().flatten(1).mean(1) + 1e-7).log().mean() for image in images]
    return torch.stack([w * value for w, value in zip(weights, losses, strict=True)]).sum() / sum(weights)


def deviation_loss(deviation: Tensor, error: Tensor) -> Tensor:
    """Negative logarithm of the likelihood of errors under normal distributions, per pixel, up to a constant."""
    return (0.5 * (error / deviation).square() + deviation.log()).mean()


class _Conditioned(nn.Module):
    """A network with a scan embedding that starts at zero; its output starts at zero, too."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.network = config.build()
        self.network.zero_output()
        last = nn.Linear(EMBEDDING, self.network.embedding_width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.embedding = nn.Sequential(nn.Linear(FEATURES, EMBEDDING), nn.SiLU(), last)

    def forward(self, x: Tensor, scan: Tensor) -> Tensor:
        return self.network(x, torch.full((len(x),), TIME, device=x.device), self.embedding(scan))


def _described(likelihood: Likelihood, operator: LinearOperator) -> tuple[Tensor, Tensor]:
    """Features ``(B, FEATURES)`` of the scan, and the norm of the operator ``(B, 1, 1, 1)``.

    The last feature is the logarithm of what a full image of one unit of the value range adds to a line integral, about
    pixel size times side of the image; 0 for 256 pixels of 1.5 mm.
    """
    norm = per_sample(likelihood.y.new_tensor(operator.norms()), likelihood.y)
    views = likelihood.y.shape[-2]
    strength = likelihood.to_physical.scale * norm / math.sqrt(views)
    level = torch.as_tensor(strength, device=likelihood.y.device).log().reshape(-1, 1).expand(len(likelihood.y), 1)
    features = likelihood.features.float()
    return torch.cat([features, level.to(features) - LEVEL], 1), norm


LEVEL = math.log(0.472)
"""That logarithm for 256 pixels of 1.5 mm and a full scan of parallel beams, in a range of -1000 to 1000 HU."""


class UnrolledReconstructor(DirectReconstructor):
    """The unrolled reconstruction, for any linear operator with data ``(B, 1, views, detectors)``."""

    name: ClassVar[str] = "unrolled"
    title: ClassVar[str] = "unrolled U-Nets"
    model_type: ClassVar[type[TrainedModel]] = UnrolledModel

    def _image(self, likelihood: Likelihood) -> Tensor:
        found: Unrolled = self.model(likelihood)
        return found.images[-1]
