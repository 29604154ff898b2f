"""A network that predicts the error of the posterior mean, pixel by pixel, in one evaluation.

The mean of the h-transform (:mod:`deft_ct.methods.deft.conditional_mean`) has an error ``e``. A network of its own
predicts the scale ``b`` of ``e`` from what the mean was computed from: the initial reconstruction before and after its
refinement, the back-projected residual, and the scan. It is trained on images that none of the other networks has seen,
where the errors are those of new images. The loss is the negative logarithm of Laplace's density, ``log b + |e| / b``
(Kendall and Gal 2017, arXiv 1703.04977, sec. 3.1): errors of CT have heavier tails than Gaussian ones.

**Intervals.** No density is assumed for them. The half widths of the intervals of each level, in units of ``b``, are
quantiles of ``|e| / b`` on images that the networks have not seen. This is split conformal prediction with a locally
weighted score (Lei et al. 2018, arXiv 1604.04173, sec. 2.2). The standard deviation that is reported is ``b`` times a
factor, such that ``+- 1.645`` of it are the 90 % interval. ``b`` may be a little too large for one scan and too small
for another. So a correction by the features of the scan is fitted with the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.methods.deft.htransform import Condition
from deft_ct.methods.deft.scan_embedding import check_scan_fields, scan_embedding, spread_of
from deft_ct.methods.deft.spread_calibration import nearest_in_size
from deft_ct.networks import NetworkConfig, TimeNetwork, UNetConfig, channel_axis, content_hash, network_config
from deft_ct.networks.precision import Precision, network_precision
from deft_ct.runtime.fields import check_fields, from_values
from deft_ct.runtime.intervals import normal_factor

TIME = 500
"""The time that the network is told; it sees no noise level."""
LAPLACE_DEVIATION = math.sqrt(2)
"""Standard deviation of Laplace's density in units of its scale."""
MAIN_LEVEL = 0.9
"""Level whose interval is ``+- 1.645`` of the reported standard deviation."""
_LARGEST = 8.0
"""Of the logarithm of a scale over the typical one: far beyond anything seen."""
IMAGES = 4
"""Images that enter the network: the mean, and three differences."""


@dataclass(frozen=True, kw_only=True)
class SpreadConfig:
    """What a spread network sees and how it is built.

    Args:
        spread: typical error of the mean in the prior's range; the unit of the network.
        spread_slopes: how its logarithm follows the scan features; empty for one value for all scans.
        guidance_scale: the data residual is divided by this before it enters the network.
        scan_features: whether the network is conditioned on the scan.
        arc_direction: whether its features include the position of a limited arc.
        channels: image channels.
        network: shape of the network; its channels in and out are set from the rest.

    Raises:
        ValueError: a value is not positive, or the slopes do not fit.
    """

    spread: float = 0.02
    spread_slopes: tuple[float, ...] = ()
    guidance_scale: float = 0.1
    scan_features: bool = False
    arc_direction: bool = False
    channels: int = 1
    network: NetworkConfig = field(default_factory=lambda: UNetConfig(channels=(32, 64, 64)))

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "spread_slopes", tuple(self.spread_slopes))
        if not (self.spread > 0 and self.guidance_scale > 0):
            raise ValueError("spread and guidance_scale must be positive")
        check_scan_fields(self.spread_slopes, scan_features=self.scan_features, arc_direction=self.arc_direction)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self) | {"network": self.network.to_dict(), "spread_slopes": list(self.spread_slopes)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> SpreadConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: a value is missing, of another type or out of range.
        """
        if not isinstance(values, dict) or "network" not in values:
            raise ValueError(f"expected the description of a spread network, got {str(values)[:80]}")
        return from_values(SpreadConfig, {**values, "network": network_config(values["network"])})


@dataclass(frozen=True, kw_only=True)
class FittedIntervals:
    """Half widths of intervals, fitted on images of one size.

    Args:
        half_widths: level of an interval (``"0.9"``) -> half width in units of the corrected scale. The main level
            is among them.
        image_shape: ``(H, W)`` of the images that they were fitted on.
        settings: of the mean that they hold for, see ``DEFTConfig.mean_settings``.
        provenance: data, slices, scans, seed, coverage.
        scan_slopes: the scale of the network is multiplied by ``exp(scan_slopes . features)`` first; empty for 1.
        scan_factors: smallest and largest of these factors among the scans of the fit; other scans stay within.
        root_mean_square: root-mean-square error in units of the corrected scale; 0 when unknown.
        patient_half_widths: level -> half width for single patients, in units of the corrected scale. Its interval
            covers the level in at least 90 % of the patients. Empty if there were too few.

    Raises:
        ValueError: a level lies outside of (0, 1), a width is not a positive number, the main level is missing, or the
            correction by the scan is impossible.
    """

    half_widths: Mapping[str, float]
    image_shape: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    scan_slopes: tuple[float, ...] = ()
    scan_factors: tuple[float, ...] = (1.0, 1.0)
    root_mean_square: float = 0.0
    patient_half_widths: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("image_shape", "scan_slopes", "scan_factors"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_scan_fields(self.scan_slopes, scan_features=True, arc_direction=False)
        low, high = (*self.scan_factors, 0.0, 0.0)[:2]
        finite = all(map(math.isfinite, (*self.scan_slopes, high, self.root_mean_square)))
        if not (finite and len(self.scan_factors) == 2 and 0 < low <= high and self.root_mean_square >= 0):
            raise ValueError(
                f"scan_factors must be two positive numbers in order, and all finite, got {self.scan_factors}, slopes "
                f"{self.scan_slopes} and a root mean square of {self.root_mean_square}"
            )
        for wide in self.patient_half_widths.values():
            if not 0 < wide < math.inf:
                raise ValueError(f"patient_half_widths must be positive numbers, got {self.patient_half_widths}")
        widths = {float(level): width for level, width in self.half_widths.items()}
        if any(not 0 < level < 1 for level in widths) or not all(0 < w < math.inf for w in widths.values()):
            raise ValueError(f"half_widths must be positive numbers for levels between 0 and 1, got {self.half_widths}")
        if f"{MAIN_LEVEL:g}" not in self.half_widths:
            raise ValueError(f"half_widths must hold the level {MAIN_LEVEL:g}, got {sorted(self.half_widths)}")

    def corrected(self, scale: Tensor, features: Tensor | None) -> Tensor:
        """The scale of the network after the correction by the scan.

        Args:
            scale: ``(B, *image_shape)``.
            features: of the scan, ``(B, F)``; None without slopes.

        Raises:
            ValueError: there are slopes and no features.
        """
        return scale * spread_of(1.0, self.scan_slopes, features, scale).clamp(*self.scan_factors)

    @property
    def deviation(self) -> float:
        """The reported standard deviation in units of the corrected scale."""
        return self.half_widths[f"{MAIN_LEVEL:g}"] / normal_factor(MAIN_LEVEL)

    @property
    def in_deviations(self) -> dict[str, float]:
        """Half widths in units of the reported standard deviation, by level."""
        return {level: width / self.deviation for level, width in self.half_widths.items()}

    @property
    def of_patients(self) -> dict[str, float]:
        """``patient_half_widths`` in units of the reported standard deviation."""
        return {level: width / self.deviation for level, width in self.patient_half_widths.items()}


class SpreadNetwork(nn.Module):
    """The scale of the error of the mean; starts at the typical error of the scan.

    Args:
        config: see :class:`SpreadConfig`.
        htransform_hash: ``HTransform.content_hash()`` of the h-transform whose mean it judges.
        prior_hash: ``Prior.content_hash()`` of its prior.
        intervals: fitted half widths, one for each image size.
        card: free JSON metadata: scans, data, training.
    """

    def __init__(
        self,
        config: SpreadConfig,
        *,
        htransform_hash: str = "",
        prior_hash: str = "",
        intervals: Sequence[FittedIntervals] = (),
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.htransform_hash, self.prior_hash = htransform_hash, prior_hash
        self.intervals = tuple(intervals)
        self.card = dict(card or {})
        self.precision: Precision = "float32"
        """Of the network evaluations, see ``network_precision``; not a part of the model."""
        self.network: TimeNetwork = config.network.with_channels(IMAGES * config.channels, config.channels).build()
        self.network.zero_output()
        width = self.network.embedding_width
        self.scan_embedding = scan_embedding(width, config.arc_direction) if config.scan_features else None

    def content_hash(self) -> str:
        """SHA-256 of the weights, the configuration and the networks that it belongs to."""
        return content_hash(self, self.description())

    def description(self) -> dict[str, Any]:
        """Configuration and hashes of the networks that it belongs to, JSON-ready."""
        return {
            "config": self.config.to_dict(), "htransform_sha256": self.htransform_hash,
            "prior_sha256": self.prior_hash,
        }  # fmt: skip

    def forward(self, mean: Tensor, condition: Condition) -> Tensor:
        """The scale of the error of a mean.

        Args:
            mean: of the h-transform, ``(B, *image_shape)`` in the prior's range.
            condition: that it was computed under.

        Returns:
            ``b``, positive, of the shape of the mean, in the prior's range.

        Raises:
            ValueError: the condition has no initial reconstruction, or no scan features where they are wanted.
        """
        refined, residual = condition.initial, condition.residual
        if refined is None or residual is None:
            raise ValueError("a spread network needs the initial reconstruction of the measurement: use condition_for")
        first = refined if condition.unrefined is None else condition.unrefined
        unit = self.config.spread
        inputs = [mean, (refined - mean) / unit, residual / self.config.guidance_scale, (first - mean) / (5 * unit)]
        extra = None
        if self.scan_embedding is not None:
            if condition.features is None:
                raise ValueError("this spread network needs the scan features of the measurement: use condition_for")
            extra = self.scan_embedding(condition.features.to(next(self.network.parameters())))
        with network_precision(mean.device, self.precision):
            images = torch.cat(inputs, channel_axis(mean))
            learned: Tensor = self.network(images, torch.full((len(mean),), TIME, device=mean.device), extra)
        usual = spread_of(unit, self.config.spread_slopes, condition.features, mean)
        return usual * learned.to(mean.dtype).clamp(-_LARGEST, _LARGEST).exp()

    def intervals_for(self, image_shape: Sequence[int]) -> FittedIntervals | None:
        """The intervals whose images are nearest in size; None if none are near."""
        return next(iter(nearest_in_size(self.intervals, image_shape)), None)
