"""The network of the generalised h-transform: what turns a frozen prior into a posterior.

Adding ``h_t = grad_x ln p_t(y | x_t)`` to the prior's score gives the posterior's score (DEFT, Denker et al. 2024,
arXiv 2406.01781, Prop. 2.2). In terms of the noise, ``eps_y = eps_u - sqrt(1 - abar_t) h_t``. Two forms:

* **Without a reference** (the paper, eq. 12): ``eps_h = NN1(x_t, x0h, g, t) - NN2(t) g`` with the Tweedie estimate
  ``x0h`` and the guidance ``g``, a measurement-consistency feature of ``x0h``.
* **With a reference** reconstruction ``r`` of the data (TV, or FBP), computed once for each measurement: if the image
  were known to be ``N(r, s^2 I)``, the correction of ``x0h`` would be ``k(t) (r - x0h)`` with
  ``k = sigma^2 / (sigma^2 + s^2)`` and ``sigma^2 = (1 - abar) / abar``, in closed form. The head starts from it and
  learns the rest: ``delta = (k + a(t)) (r - x0h) + b(t) g + c(t) NN1``, where ``c = sigma s / sqrt(sigma^2 + s^2)`` is
  the spread that this belief leaves, so that the network's output is of order one at every noise level (the
  preconditioning of Karras et al. 2022, arXiv 2206.00364, around ``r`` instead of zero).

A head for many scans is also told which one it has: a few features of the scan (views, angular range, noise, beam)
enter the embedding of the time through a small network that starts at zero, and ``s`` follows them.

The reference may be refined by a network of its own, once for each measurement
(:mod:`deft_ct.methods.deft.refinement`); ``r`` is then the refined one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.likelihood import GuidanceKind
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.scan_embedding import SCAN_FEATURES, scan_embedding, spread_of
from deft_ct.networks import UNet, UNetConfig, content_hash, timestep_embedding
from deft_ct.networks.precision import Precision, network_precision

ReferenceKind = Literal["none", "fbp", "tv"]


@dataclass(frozen=True, kw_only=True)
class HTransformConfig:
    """What the head sees and how its output is used; stored with the weights, so it cannot be mismatched.

    Args:
        guidance: kind of the measurement-consistency feature, see ``Likelihood.guidance`` and ``htransform.guidance``.
        reference: reconstruction that the head starts from, computed once for each measurement.
        spread: standard deviation ``s`` of the image around the reference, in the prior's range.
        guidance_scale: the guidance is divided by this before it enters the network.
        guidance_spread: spread of the images before the noise, in the prior's range, for the kinds "cg" and "split".
        guidance_steps: conjugate-gradient iterations of these kinds.
        use_tweedie: whether NN1 sees ``x0h``; False is an ablation of the paper.
        time_scaling: whether the learned multiple ``NN2(t)`` of the guidance is added; False is an ablation.
        scan_features: whether the network is told the scan, see ``htransform.features.scan_features``.
        arc_direction: whether it is told where a limited arc lies, too.
        spread_slopes: how the logarithm of the spread follows the scan features; empty for one spread for all scans.
        tv_iterations: of the TV reference, see ``classical.reference``.
        refinement: network that improves the reference; None for none.
        channels: image channels.
        network: shape of NN1; ``in_channels`` is set from the rest.

    Raises:
        ValueError: a value is unknown or not positive.
    """

    guidance: GuidanceKind = "fbp"
    reference: ReferenceKind = "tv"
    spread: float = 0.04
    guidance_scale: float = 0.1
    guidance_spread: float = 0.2
    guidance_steps: int = 5
    use_tweedie: bool = True
    time_scaling: bool = True
    scan_features: bool = False
    arc_direction: bool = False
    spread_slopes: tuple[float, ...] = ()
    tv_iterations: int = 16
    refinement: RefinementConfig | None = None
    channels: int = 1
    network: UNetConfig = field(default_factory=lambda: UNetConfig(channels=(64, 96, 128)))

    def __post_init__(self) -> None:
        if self.guidance not in get_args(GuidanceKind):
            raise ValueError(f"unknown guidance {self.guidance!r}; known: {', '.join(get_args(GuidanceKind))}")
        if self.reference not in ("none", "fbp", "tv"):
            raise ValueError(f"unknown reference {self.reference!r}; known: none, fbp, tv")
        if min(self.spread, self.guidance_scale, self.guidance_spread, self.guidance_steps) <= 0:
            raise ValueError("spread, guidance_scale, guidance_spread and guidance_steps must be positive")
        if self.guidance == "split" and self.reference == "none":
            raise ValueError("guidance 'split' compares with a reference: take reference fbp or tv, or guidance cg")
        object.__setattr__(self, "spread_slopes", tuple(self.spread_slopes))
        if self.arc_direction and not self.scan_features:
            raise ValueError("arc_direction needs scan_features=True")
        if self.spread_slopes and not (self.scan_features and len(self.spread_slopes) == SCAN_FEATURES):
            raise ValueError(
                f"spread_slopes needs scan_features=True and {SCAN_FEATURES} numbers, got {self.spread_slopes}"
            )
        if self.tv_iterations < 1:
            raise ValueError(f"tv_iterations must be at least 1, got {self.tv_iterations}")
        if self.refinement is not None and self.reference == "none":
            raise ValueError("a refinement needs a reference to improve: tv or fbp")
        if self.refinement is not None and self.refinement.scan_features:
            if self.refinement.arc_direction != self.arc_direction or not self.scan_features:
                raise ValueError("the head and its refinement must be told the same of the scan")

    @property
    def features(self) -> int:
        """Images that enter NN1."""
        return 2 + int(self.use_tweedie) + 2 * int(self.reference != "none") + int(self.guidance == "split")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; later additions only where they are in use, so that older heads keep their hash."""
        values = asdict(self) | {"network": self.network.to_dict(), "spread_slopes": list(self.spread_slopes)}
        values["refinement"] = None if self.refinement is None else self.refinement.to_dict()
        unused = {
            name for name in ("scan_features", "arc_direction", "spread_slopes", "refinement") if not values[name]
        }
        unused |= {"tv_iterations"} if self.tv_iterations == 16 else set()
        unused |= {"guidance_spread", "guidance_steps"} if self.guidance not in ("cg", "split") else set()
        return {name: value for name, value in values.items() if name not in unused}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> HTransformConfig:
        """The inverse of :meth:`to_dict`."""
        refinement = values.get("refinement")
        return HTransformConfig(
            **{
                **values,
                "network": UNetConfig(**values["network"]),
                "refinement": None if refinement is None else RefinementConfig.from_dict(refinement),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What does not change while one measurement is sampled.

    Args:
        reference: ``(B, C, H, W)`` in the prior's range, or None.
        remainder: guidance of the reference: what the data still say that it does not, or None.
        scan: features of the scan, see ``htransform.features.scan_features``, or None.
    """

    reference: Tensor | None = None
    remainder: Tensor | None = None
    scan: Tensor | None = None

    def repeat(self, count: int) -> Condition:
        """Every image ``count`` times in a row."""
        return self._each(lambda value: value.repeat_interleave(count, 0))

    def __getitem__(self, part: slice) -> Condition:
        """Some of the images."""
        return self._each(lambda value: value[part])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return Condition(**{name: None if value is None else change(value) for name, value in values.items()})


class HTransform(nn.Module):
    """The h-transform of one prior.

    Args:
        config: features and form.
        schedule: noise schedule of the prior.
        prior_hash: ``Prior.content_hash()`` of the prior that it was trained for.
        card: free JSON metadata: operator, noise, data, training.
    """

    def __init__(
        self, config: HTransformConfig, schedule: Schedule, *, prior_hash: str = "", card: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.schedule = schedule
        self.prior_hash = prior_hash
        self.card = dict(card or {})
        self.precision: Precision = "float32"
        """Of the network evaluations, see ``network_precision``; not a part of the model."""
        network = UNetConfig(
            **{
                **config.network.to_dict(),
                "in_channels": config.features * config.channels,
                "out_channels": config.channels,
            }
        )
        self.network = UNet(network)
        self.network.zero_output()
        last = nn.Linear(128, 2)
        nn.init.zeros_(last.weight)
        with torch.no_grad():  # a small start in the direction of the data, as in the paper
            last.bias.copy_(torch.tensor([0.0, 0.01 if config.reference == "none" else 0.0]))
        self.time_scale = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), last)
        width = self.network.embedding_width
        self.scan_embedding = scan_embedding(width, config.arc_direction) if config.scan_features else None
        self.refinement: Refinement | None = None
        if config.refinement is not None:  # trained before the head, and frozen in its training
            self.refinement = Refinement(config.refinement).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> HTransform:
        """As in torch, but the refinement, which is frozen, always works as in use."""
        super().train(mode)
        if self.refinement is not None:
            self.refinement.eval()
        return self

    def content_hash(self) -> str:
        """SHA-256 of the weights and of everything that gives them meaning."""
        return content_hash(self, self.description())

    def description(self) -> dict[str, Any]:
        """Configuration, schedule and prior: everything but the weights and the card, JSON-ready."""
        return {
            "config": self.config.to_dict(),
            "schedule": asdict(self.schedule),
            "prior_sha256": self.prior_hash,
        }

    def _evaluate(self, inputs: list[Tensor], t: Tensor, condition: Condition) -> Tensor:
        with network_precision(t.device, self.precision):
            extra = None if self.scan_embedding is None else self.scan_embedding(self._scan(condition))
            out: Tensor = self.network(torch.cat(inputs, 1), t, extra)
        return out.to(inputs[0].dtype)

    def _scan(self, condition: Condition) -> Tensor:
        if condition.scan is None:
            raise ValueError("this h-transform needs the scan features of the measurement: use condition_for")
        return condition.scan.to(self.network.conv_in.weight)

    @torch.no_grad()
    def refine(self, reference: Tensor, remainder: Tensor, scan: Tensor | None) -> Tensor:
        """The refined reference, or the one given where there is no refinement; arguments as in :class:`Condition`."""
        if self.refinement is None:
            return reference
        with network_precision(reference.device, self.precision):
            out: Tensor = self.refinement(reference, remainder, scan)
        return out

    def spread(self, condition: Condition, like: Tensor) -> Tensor:
        """``s`` of each image, or one for all, shaped to broadcast over ``like``."""
        slopes = self.config.spread_slopes
        return spread_of(self.config.spread, slopes, self._scan(condition) if slopes else None, like)

    def noise_levels(
        self, t: Tensor, like: Tensor, condition: Condition | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(sqrt(abar), sigma, k, c)`` at times ``t``, shaped to broadcast over ``like``; see the module."""
        signal, noise = self.schedule.coefficients(t, like)
        sigma, spread = noise / signal, self.spread(condition or Condition(), like)
        total = (sigma.square() + spread.square()).sqrt()
        return signal, sigma, (sigma / total).square(), sigma * spread / total

    def forward(
        self, x_t: Tensor, t: Tensor, x0: Tensor, eps: Tensor, guidance: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """The conditional estimates from the unconditional ones.

        Args:
            x_t: ``(B, C, H, W)``.
            t: times, ``(B,)``.
            x0: Tweedie estimate of the prior.
            eps: noise estimate of the prior.
            guidance: feature of ``x0``, of the kind in the configuration.
            condition: what stays the same for a measurement.

        Returns:
            ``(x0, eps)`` given the measurement, each of the shape of ``x_t``.

        Raises:
            ValueError: the configuration needs a reference or scan features and the condition has none.
        """
        config = self.config
        signal, sigma, gain, scale = self.noise_levels(t, x_t, condition)
        with torch.autocast(x_t.device.type, enabled=False):  # they multiply images: mixed precision is for the network
            factors = self.time_scale(timestep_embedding(t, 64))[:, :, None, None, None].unbind(1)
        pull = guidance * factors[1] if config.time_scaling else torch.zeros_like(guidance)
        scaled = guidance / config.guidance_scale
        if config.reference == "none":
            inputs = [x_t, scaled] + ([x0] if config.use_tweedie else [])
            eps_h = self._evaluate(inputs, t, condition) - pull / config.guidance_scale
            return x0 - sigma * eps_h, eps + eps_h
        reference, remainder = condition.reference, condition.remainder
        if reference is None or remainder is None:
            raise ValueError(f"this h-transform needs the {config.reference!r} reference of the measurement")
        variance = self.spread(condition, x_t).square()
        level = (1 + (variance - 1) * signal.square()).sqrt()  # spread of x_t around the reference
        inputs = [(x_t - signal * reference) / level, scaled, reference, remainder / config.guidance_scale]
        width = (variance + sigma.square() / (1 + 4 * sigma.square())).sqrt()
        if config.use_tweedie:
            inputs.append((x0 - reference) / width)
        if config.guidance == "split":  # x0 - reference without what the data tell of it
            inputs.append((x0 + guidance - reference - remainder) / width)
        learned = self._evaluate(inputs, t, condition)
        delta = (gain + factors[0]) * (reference - x0) + pull + scale * learned
        return x0 + delta, eps - delta / sigma
