"""A U-Net that removes the artefacts of filtered back-projection (Jin et al. 2017, doi:10.1109/TIP.2017.2713099)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.initial import Reference, check_reference, reference_reconstruction
from deft_ct.methods.supervised.direct import DirectReconstructor
from deft_ct.methods.supervised.model import TrainedModel, image_network
from deft_ct.networks import UNetConfig
from deft_ct.runtime.fields import check_fields
from deft_ct.training.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class FBPUNetShape:
    """What the network sees and how it is built.

    Args:
        reference: the reconstruction that is improved, ``"fbp"`` or ``"tv"``.
        spread: typical error of that reconstruction in the value range; the network's output is of order one.
        network: shape of the U-Net; channels in and out are set here.

    Raises:
        ValueError: a value is unknown or not positive.
    """

    reference: Reference = "fbp"
    spread: float = 0.1
    network: UNetConfig = field(default_factory=lambda: UNetConfig(channels=(64, 96, 128)))

    def __post_init__(self) -> None:
        check_fields(self)
        check_reference(self.reference)
        if not self.spread > 0:
            raise ValueError(f"spread must be positive, got {self.spread}")


class FBPUNetModel(TrainedModel):
    """``x = r + s f(r)`` with the quick reconstruction ``r``; the time input of the U-Net is held at 0."""

    kind = "fbp_unet"
    shape_type = FBPUNetShape

    def __init__(
        self, shape: FBPUNetShape, *, value_range: PriorRange | None = None, card: dict[str, Any] | None = None
    ) -> None:
        super().__init__(shape, value_range=value_range, card=card)
        self.network = image_network(shape.network, 1)

    def forward(self, reference: Tensor) -> Tensor:
        """Improve reconstructions ``(B, 1, H, W)`` in the value range."""
        self.count(len(reference))
        t = torch.zeros(len(reference), device=reference.device)
        change = self.network(reference, t)
        return reference + self.shape.spread * change.to(reference.dtype)

    def training_loss(self, network: nn.Module, pairs: Pairs, generator: torch.Generator) -> Tensor:
        """Mean squared error in units of the spread."""
        reference = reference_reconstruction(pairs.likelihood, self.shape.reference)
        return ((network(reference) - pairs.x0) / self.shape.spread).square().mean()


class FBPUNet(DirectReconstructor):
    """FBP (or TV), then a trained U-Net."""

    name: ClassVar[str] = "fbp_unet"
    title: ClassVar[str] = "FBP + U-Net"
    model_type: ClassVar[type[TrainedModel]] = FBPUNetModel

    def _image(self, likelihood: Likelihood) -> Tensor:
        image: Tensor = self.model(reference_reconstruction(likelihood, self.model.shape.reference))
        return image
