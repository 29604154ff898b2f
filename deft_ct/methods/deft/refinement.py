"""A network that improves the initial reconstruction before the h-transform sees it.

The h-transform at the noisiest time is the posterior mean, and there ``x_t`` says nothing: it is a function of the
measurement alone. So its first part can be computed once for each measurement instead of at every step:
``r' = r + s f(r, g(r), scan)`` with the initial reconstruction ``r``, its back-projected residual ``g(r)``, and its
typical error ``s``. Trained as a regression, ``E |r' - x_0|^2``, the best ``r'`` is ``E[x_0 | r, g(r)]``, and it needs
no prior and no noise levels. The h-transform then works around ``r'``, whose data residual is computed again.

A second reconstruction ``l`` of the same data may stand beside ``r``, by a trained model that is frozen. Its errors are
others, so both together say more. Then ``r' = (1 - a) (r + s f(r, g(r), (l - r) / s, scan)) + a l``, where the share
``a`` follows the scan.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft.guidance import guidance_for
from deft_ct.methods.deft.scan_embedding import MIRRORED, check_scan_fields, scan_embedding, scan_width, spread_of
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel, PrimalDualShape
from deft_ct.networks import (
    NetworkConfig,
    TimeNetwork,
    UNetConfig,
    channel_axis,
    content_hash,
    network_config,
)
from deft_ct.networks.precision import Precision
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.runtime.evaluations import uncounted
from deft_ct.runtime.fields import check_fields, fitted, from_values

TIME = 999.0
"""Constant input of the time embedding: the noisiest step of the h-transform that its weights may come from."""
FIRST_SHARE = -1.5
"""Logit of the share of a second reconstruction before the training."""
PIXELS_AT_ONCE = 512**2
"""Of images that a processor refines together."""


def parts(images: Tensor, pixels: int) -> list[slice]:
    """Images of so many pixels in groups."""
    # On a processor a few at a time: their features stay in the cache, and memory is bounded.
    count = max(1, PIXELS_AT_ONCE // pixels) if images.device.type == "cpu" else max(1, len(images))
    return [slice(first, first + count) for first in range(0, len(images), count)]


@dataclass(frozen=True, kw_only=True)
class RefinementConfig:
    """Shape of a :class:`Refinement`.

    Args:
        guidance: kind of the data residual, see ``Likelihood.guidance``.
        spread: typical error of the initial reconstruction in the prior's range.
        spread_slopes: how the logarithm of the spread follows the scan features; empty for one spread for all scans.
        guidance_scale: the data residual is divided by this before it enters the network.
        scan_features: whether the network is conditioned on the scan.
        arc_direction: whether its features include the position of a limited arc.
        mirror: at inference, average with the result for the mirror images, mirrored back. This doubles the work for a
            smaller error. Not used in training. Needs ``arc_direction``, because a mirrored scan may have its arc
            elsewhere.
        operator_images: images that the network is given of the operator and its data, see
            ``HTransformConfig.operator_images``; none of an estimate.
        second: shape of the learned primal-dual network that gives the second reconstruction; None for none.
        channels: image channels.
        network: shape of the network; its channels in and out are set from the rest.

    Raises:
        ValueError: a value is not positive, the slopes do not fit, or an image belongs to an estimate.
    """

    guidance: str = "fbp"
    spread: float = 0.04
    spread_slopes: tuple[float, ...] = ()
    guidance_scale: float = 0.1
    scan_features: bool = False
    arc_direction: bool = False
    mirror: bool = False
    operator_images: tuple[FeatureImage, ...] = ()
    second: PrimalDualShape | None = None
    channels: int = 1
    network: NetworkConfig = field(default_factory=lambda: UNetConfig(channels=(64, 96, 128)))

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "spread_slopes", tuple(self.spread_slopes))
        object.__setattr__(self, "operator_images", tuple(self.operator_images))
        if any(image.of_estimate for image in self.operator_images):
            raise ValueError("a refinement sees no estimate: operator_images must be those of the data")
        if guidance_for(self.guidance).has_settings:
            raise ValueError(
                f"a refinement sees no noise level: take guidance score, adjoint, fbp or data, got {self.guidance}"
            )
        if not (self.spread > 0 and self.guidance_scale > 0):
            raise ValueError("spread and guidance_scale must be positive")
        check_scan_fields(self.spread_slopes, scan_features=self.scan_features, arc_direction=self.arc_direction)
        if self.mirror and not self.arc_direction:
            raise ValueError("mirror needs arc_direction=True")
        if self.second is not None and self.channels != 1:
            raise ValueError(f"a second reconstruction has one channel, and the images have {self.channels}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, later additions only where they are not the default."""
        values = asdict(self) | {"network": self.network.to_dict(), "spread_slopes": list(self.spread_slopes)}
        values["operator_images"] = [asdict(image) for image in self.operator_images]
        usual: dict[str, Any] = {
            "guidance": "fbp", "arc_direction": False, "mirror": False, "operator_images": [], "second": None
        }  # fmt: skip
        return {name: value for name, value in values.items() if name not in usual or value != usual[name]}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> RefinementConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: a value is missing, of another type or out of range.
        """
        if not isinstance(values, dict) or "network" not in values:
            raise ValueError(f"expected the description of a refinement, got {str(values)[:80]}")
        images, second = fitted(values.get("operator_images", []), list, "operator_images"), values.get("second")
        built = {
            "network": network_config(values["network"]),
            "operator_images": tuple(from_values(FeatureImage, image) for image in images),
            "second": None if second is None else from_values(PrimalDualShape, second),
        }
        return from_values(RefinementConfig, values | built)


class Refinement(nn.Module):
    """``r' = r + s f(r, g, scan)``; starts at ``r' = r``. With a second reconstruction see the module.

    Args:
        config: see :class:`RefinementConfig`.
        relative_error: root-mean-square error of the refined reconstructions in units of the spread, if known.
        card: free JSON metadata: scans, data, training.
    """

    def __init__(
        self, config: RefinementConfig, *, relative_error: float = 1.0, card: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.relative_error = relative_error
        self.card = dict(card or {})
        self.guidance = guidance_for(config.guidance)
        inputs = (2 + len(config.operator_images) + (config.second is not None)) * config.channels
        self.network: TimeNetwork = config.network.with_channels(inputs, config.channels).build()
        self.network.zero_output()
        width = self.network.embedding_width
        self.scan_embedding = scan_embedding(width, config.arc_direction) if config.scan_features else None
        self.second: PrimalDualModel | None = None
        self.share: nn.Linear | None = None
        if config.second is not None:
            self.second = PrimalDualModel(config.second).requires_grad_(False).eval()  # trained before
            self.share = nn.Linear(scan_width(config.arc_direction) if config.scan_features else 1, 1)
            nn.init.zeros_(self.share.weight)
            nn.init.constant_(self.share.bias, FIRST_SHARE)

    def train(self, mode: bool = True) -> Refinement:
        """As in torch, but the network of the second reconstruction, which is frozen, always works as in use."""
        super().train(mode)
        if self.second is not None:
            self.second.eval()
        return self

    @property
    def typical_error(self) -> float:
        """Typical error of the refined reconstruction in the prior's range, for the scan with features zero."""
        return self.config.spread * self.relative_error

    def content_hash(self) -> str:
        """SHA-256 of the weights and of the configuration."""
        return content_hash(self, self.config.to_dict())

    def spread(self, scan: Tensor | None, like: Tensor) -> Tensor:
        """``s`` of each image, or one for all, shaped to broadcast over ``like``."""
        return spread_of(self.config.spread, self.config.spread_slopes, scan, like)

    def second_image(self, likelihood: Likelihood, precision: Precision = "float32") -> Tensor | None:
        """The second reconstruction of the data, ``(B, 1, H, W)`` in the prior's range; None where there is none."""
        if self.second is None:
            return None
        self.second.precision = precision
        pixels = math.prod(likelihood.operator.domain_shape)
        with torch.no_grad(), uncounted():
            return torch.cat([self.second(likelihood[part]) for part in parts(likelihood.y, pixels)])

    def forward(
        self,
        initial: Tensor,
        residual: Tensor,
        scan: Tensor | None = None,
        images: Tensor | None = None,
        second: Tensor | None = None,
    ) -> Tensor:
        """Improve initial reconstructions.

        Args:
            initial: ``(B, *image_shape)`` in the prior's range.
            residual: its guidance: the back-projected residual of the data, of the same shape.
            scan: the features of the scan, where the configuration wants them.
            images: ``(B, F, *image_shape)``, what the operator declares, where the configuration wants it.
            second: the second reconstruction, of the shape of ``initial``, where the configuration wants it.

        Returns:
            ``(B, *image_shape)``.

        Raises:
            ValueError: the scan features, the images or the second reconstruction are missing.
        """
        if (0 if images is None else images.shape[1]) != len(self.config.operator_images):
            raise ValueError(
                f"this refinement needs {len(self.config.operator_images)} images of the operator: use condition_for"
            )
        if (second is None) != (self.second is None):
            raise ValueError(
                "this refinement needs a second reconstruction: use condition_for" if second is None
                else "this refinement takes no second reconstruction"
            )  # fmt: skip
        seen = [initial, residual, *([] if images is None else images.unbind(1)), *([] if second is None else [second])]
        refined = self._refined(seen, scan)
        if not self.config.mirror or self.training:
            return refined
        mirrored = None if scan is None else scan * scan.new_tensor(MIRRORED)
        return (refined + self._refined([image.flip(-1) for image in seen], mirrored).flip(-1)) / 2

    def _refined(self, seen: list[Tensor], scan: Tensor | None) -> Tensor:
        extra = None
        if self.scan_embedding is not None:
            if scan is None:
                raise ValueError("this refinement needs the scan features of the measurement: use condition_for")
            extra = self.scan_embedding(scan.to(next(self.network.parameters())))
        initial, residual, *others = seen
        spread, second = self.spread(scan, initial), others[-1] if self.second is not None else None
        if second is not None:
            others = [*others[:-1], (second - initial) / spread]
        inputs = torch.cat([initial, residual / self.config.guidance_scale, *others], channel_axis(initial))
        learned: Tensor = self.network(inputs, torch.full((len(initial),), TIME, device=initial.device), extra)
        refined = initial + spread * learned.to(initial.dtype)
        return refined if second is None else torch.lerp(refined, second, self._share(scan, initial))

    def _share(self, scan: Tensor | None, like: Tensor) -> Tensor:
        """The share of the second reconstruction in the result, shaped to broadcast over the images."""
        assert self.share is not None
        told = like.new_ones((len(like), 1)) if self.scan_embedding is None or scan is None else scan.to(like)
        with torch.autocast(like.device.type, enabled=False):
            return self.share(told).sigmoid().reshape(-1, *(1,) * (like.ndim - 1))
