"""Learned primal-dual reconstruction (Adler and Oektem 2018, doi:10.1109/TMI.2018.2799231, algorithm 3).

The primal-dual iteration of the total-variation literature, unrolled, with its proximal operators replaced by small
networks. The data enter every iteration through ``A`` and ``A^T``, given at run time, so that one set of weights can be
applied to any geometry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deft_ct.measurement.data_term import per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.classical.common import linear
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.methods.supervised.direct import DirectReconstructor
from deft_ct.methods.supervised.model import TrainedModel, check_unrolled
from deft_ct.networks.memory_format import channels_together
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.memory import check_memory
from deft_ct.operators.row_order import RowOrder
from deft_ct.runtime.fields import check_fields
from deft_ct.training.pairs import Pairs

BALANCED_VIEWS = 60
"""Number of views at which a network for any scan weighs its data as one for a single scan does."""
FEATURES = 6
"""Numbers that a ray transform says of itself, see ``Operator.features``."""
EMBEDDING = 32
"""Width of the embedding of the scan."""

MOST_ITERATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class PrimalDualShape:
    """How the iteration is built; the defaults are the paper's, but for the start.

    Args:
        iterations: unrolled iterations, each with its own weights.
        memory: images, and as many sinograms, that are carried from one iteration to the next.
        channels: features of the two hidden layers of each network.
        start: ``"zero"`` as in the paper, or ``"fbp"``, which needs fewer iterations and less training.
        spread: typical error in the value range; divides the loss.
        scan_features: one network for any scan: scale and shift of the hidden features follow a description of the
            scan, and dual variables keep their size whatever the number of views.

    Raises:
        ValueError: a value is unknown or not positive.
    """

    iterations: int = 10
    memory: int = 5
    channels: int = 32
    start: str = "fbp"
    spread: float = 0.1
    scan_features: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.iterations, self.channels) < 1 or self.memory < 2:
            raise ValueError(
                "iterations and channels must be at least 1, and memory at least 2, got "
                f"{self.iterations}, {self.channels} and {self.memory}"
            )
        if max(self.iterations, self.memory) > MOST_ITERATIONS:
            raise ValueError(
                f"at most {MOST_ITERATIONS} iterations and as many images of memory, got {self.iterations} and "
                f"{self.memory}"
            )
        if self.start not in ("zero", "fbp"):
            raise ValueError(f"start must be zero or fbp, got {self.start!r}")
        if not self.spread > 0:
            raise ValueError(f"spread must be positive, got {self.spread}")
        weights = 18 * self.iterations * self.channels * (self.channels + 2 * self.memory)
        check_memory(
            4 * weights, f"a network of {self.iterations} iterations with {self.channels} features",
            "take fewer iterations or features",
        )  # fmt: skip


class PrimalDualModel(TrainedModel):
    """The unrolled iteration.

    Inside, an image is ``u = mu / s``, where ``s`` is the attenuation of one unit of the value range, so air is 0 and
    water about 1; the operator is divided by its norm, and the data by both. Then neither the pixel size nor the unit
    of length matters.
    """

    kind = "learned_primal_dual"
    shape_type = PrimalDualShape

    def __init__(
        self, shape: PrimalDualShape, *, value_range: PriorRange | None = None, card: dict[str, Any] | None = None
    ) -> None:
        super().__init__(shape, value_range=value_range, card=card)
        steps, m = range(shape.iterations), shape.memory
        self.dual = nn.ModuleList(_Update(m + 2, m, shape.channels) for _ in steps)
        self.primal = nn.ModuleList(_Update(m + 1, m, shape.channels) for _ in steps)
        self.scan_embedding = _scan_embedding(4 * shape.iterations * shape.channels) if shape.scan_features else None

    def description(self) -> dict[str, Any]:
        """As for every model; networks for single scans keep the description that they had before there were others."""
        values = super().description()
        if not self.shape.scan_features:
            del values["shape"]["scan_features"]
        return values

    def forward(self, likelihood: Likelihood) -> Tensor:
        """Reconstruct.

        Args:
            likelihood: data with one channel, in the value range.

        Returns:
            ``(B, 1, H, W)`` in the value range.

        Raises:
            TypeError: the operator is not linear.
        """
        operator = linear(self.kind, likelihood.operator)
        norm = per_sample(likelihood.y.new_tensor(operator.norms()), likelihood.y)
        scale = likelihood.to_physical.scale
        # Neighbouring rows of a sinogram are convolved, so they have to be neighbouring views in whatever order they
        # were taken. Only the networks see this order; the operator keeps its own.
        order = operator.row_order()
        y = likelihood.y / (scale * norm)
        y = y if order is None else order.arrange(y)
        memory = self.shape.memory
        self.count(len(y))
        h = y.new_zeros((len(y), memory, *y.shape[-2:]))
        if self.shape.start == "fbp":
            with torch.autocast(y.device.type, enabled=False):
                f = likelihood.to_physical(reference_reconstruction(likelihood, "fbp")) / scale
            f = f.expand(-1, memory, -1, -1).clone()
        else:
            f = y.new_zeros((len(y), memory, *operator.domain_shape))
        # A ray sees about as much whatever the number of views, while the norm grows with its square root.
        balance = 1.0
        modulation: list[Tensor | None] = [None] * (2 * len(self.dual))
        if self.scan_embedding is not None:
            balance = math.sqrt(y.shape[-2] / BALANCED_VIEWS)
            modulation = list(self.scan_embedding(likelihood.features).float().chunk(2 * len(self.dual), 1))
        y = y * balance
        for k, (dual, primal) in enumerate(zip(self.dual, self.primal, strict=True)):
            seen = torch.cat([h, _apply(operator, f[:, 1:2], order) * (balance / norm), y], 1)
            h = h + dual(seen, modulation[2 * k]).float()
            seen = torch.cat([f, _adjoint(operator, h[:, :1], order) / (balance * norm)], 1)
            f = f + primal(seen, modulation[2 * k + 1]).float()
        out: Tensor = likelihood.to_physical.inverse(f[:, :1] * scale)
        return out

    def check(self, likelihood: Likelihood) -> None:
        """Refuse operators that are not linear, data before the logarithm, and data that are not ``(B, 1, v, d)``."""
        check_unrolled(self.kind, likelihood, told_scan=self.scan_embedding is not None)

    def training_loss(self, network: nn.Module, pairs: Pairs, generator: torch.Generator) -> Tensor:
        """Mean squared error in units of the spread."""
        return ((network(pairs.likelihood) - pairs.x0) / self.shape.spread).square().mean()


class _Update(nn.Sequential):
    """The paper's three layers; the last starts near zero, so that the iteration starts near the identity."""

    def __init__(self, inputs: int, outputs: int, channels: int) -> None:
        last = nn.Conv2d(channels, outputs, 3, padding=1)
        for parameter in last.parameters():
            nn.init.normal_(parameter, std=1e-3)
        super().__init__(
            nn.Conv2d(inputs, channels, 3, padding=1), nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels),
            last,
        )  # fmt: skip

    def forward(self, x: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Apply the layers; ``modulation`` ``(B, 2 channels)`` scales and shifts the features of the first one."""
        first, *others = self
        x = channels_together(x)
        # The first layer compares data with projections. In bfloat16 they are too coarse for that, which costs 0.04 dB.
        with torch.autocast(x.device.type, enabled=False):
            x = first(x.float())
        if modulation is not None:
            scale, shift = modulation[:, :, None, None].to(x).chunk(2, 1)
            x = torch.addcmul(shift, x, 1 + scale)
        for layer in others:
            x = layer(x)
        return x


def _scan_embedding(outputs: int) -> nn.Sequential:
    last = nn.Linear(EMBEDDING, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(FEATURES, EMBEDDING), nn.SiLU(), last)


def _apply(operator: LinearOperator, x: Tensor, order: RowOrder | None) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):  # sparse products and line integrals stay in float32
        out: Tensor = operator(x.float())
    return out if order is None else order.arrange(out)


def _adjoint(operator: LinearOperator, y: Tensor, order: RowOrder | None) -> Tensor:
    with torch.autocast(y.device.type, enabled=False):
        return operator.adjoint(y.float() if order is None else order.restore(y.float()))


class LearnedPrimalDual(DirectReconstructor):
    """The learned primal-dual method, for any linear operator with data ``(B, 1, views, detectors)``."""

    name: ClassVar[str] = "learned_primal_dual"
    title: ClassVar[str] = "learned primal-dual"
    model_type: ClassVar[type[TrainedModel]] = PrimalDualModel

    def _image(self, likelihood: Likelihood) -> Tensor:
        image: Tensor = self.model(likelihood)
        return image
