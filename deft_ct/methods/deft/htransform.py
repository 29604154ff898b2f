"""The network of the generalised h-transform, which turns a frozen prior into a posterior.

Adding ``h_t = grad_x ln p_t(y | x_t)`` to the prior's score gives the posterior's score (DEFT, Denker et al. 2024,
arXiv 2406.01781, Prop. 2.2). In terms of the noise, ``eps_y = eps_u - sqrt(1 - abar_t) h_t``. Two forms:

* **Without an initial reconstruction** (the paper, eq. 12): a network ``NN1(x_t, x0h, g, t)`` and a multiple ``NN2(t)``
  of the guidance ``g``, a measurement-consistency feature of the Tweedie estimate ``x0h``. The paper adds both to the
  noise. At the noisiest times the error of the noise counts ``sigma`` times in the image (158 at the end of the linear
  schedule), and neither its loss nor its start see that. Here the sum is in the units of the image, ``delta = NN2(t) g
  + c(t) NN1 - k(t) x0h`` with ``c`` as below, and ``s`` the typical error of ``x0h`` that the data can mend. For little
  noise ``c`` is ``sigma``, and this is the paper's form. The last term takes away what an inexact prior leaves of
  ``x0h`` at the noisiest times (:func:`~deft_ct.methods.deft.guidance.reliable_share`). A guidance that is a step
  (``Guidance.is_step``) starts with ``NN2 = 1``, so an untrained h-transform is a guided sampler.
* **With an initial reconstruction** ``r`` of the data (TV, or the pseudo-inverse), computed once for each measurement.
  If the image were known to be ``N(r, s^2 I)``, the correction of ``x0h`` would be ``k(t) (r - x0h)`` in closed form,
  with ``k = sigma^2 / (sigma^2 + s^2)`` and ``sigma^2 = (1 - abar) / abar``. The network starts from it and learns the
  rest: ``delta = (k + a(t)) (r - x0h) + b(t) g + c(t) NN1``. Here ``c = sigma s / sqrt(sigma^2 + s^2)`` is the standard
  deviation of the image under this assumption. The network's output is therefore of order one at every noise level.
  This is the preconditioning of Karras et al. 2022 (arXiv 2206.00364) around ``r`` instead of zero.

The closed form assumes that pixels are independent. The prior knows how they depend on each other, so its estimate is
better than the formula says. ``HTransformConfig.reach`` above ``s`` gives it more weight: the second form is then the
first one with ``r`` in the place of zero, ``delta = k (r - x0h) + (1 - k) NN2(t) g + c(t) NN1`` with
``k = sigma^2 / (sigma^2 + reach^2)``.

It consists of four parts, each an object. The *initial reconstruction* is in :mod:`deft_ct.methods.initial`, the
*guidance* in :mod:`deft_ct.methods.deft.guidance`, and the *network* in :mod:`deft_ct.networks`. The *conditioning*
uses what the operator says of itself: a few numbers, ``Operator.features``, and images, ``Operator.feature_images``,
such as a mask or the up-sampled data. The images enter NN1 as further channels. A configuration stores their names.

An h-transform for many scans is also conditioned on the scan. Its features are views, angular range, noise and beam.
They enter the time embedding through a small network that starts at zero, and ``s`` depends on them.

A separate network may refine the initial reconstruction, once for each measurement
(:mod:`deft_ct.methods.deft.refinement`). Then ``r`` is the refined image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft.config import NO_INITIAL, HTransformConfig
from deft_ct.methods.deft.guidance import ReliableGuidance, reliable_share
from deft_ct.methods.deft.refinement import Refinement, parts
from deft_ct.methods.deft.scan_embedding import scan_embedding, spread_of
from deft_ct.networks import (
    TimeNetwork,
    channel_axis,
    content_hash,
    timestep_embedding,
)
from deft_ct.networks.precision import Precision, network_precision


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What does not change while one measurement is sampled.

    Args:
        initial: the initial reconstruction, refined if there is a refinement, ``(B, *image_shape)`` in the prior's
            range, or None.
        residual: its guidance, the back-projected residual of the data, or None.
        features: descriptor of the measurement, ``(B, F)``, see ``Operator.features``, or None.
        images: images that the operator declares, ``(B, F, *image_shape)`` in the order of
            ``HTransformConfig.operator_images``, or None. Those of an estimate follow it, see
            :func:`~deft_ct.methods.deft.conditioning.with_estimate`.
        unrefined: the initial reconstruction before its refinement, or None without a refinement.
    """

    initial: Tensor | None = None
    residual: Tensor | None = None
    features: Tensor | None = None
    images: Tensor | None = None
    unrefined: Tensor | None = None

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
        shape = config.network.with_channels(config.features * config.channels, config.channels)
        self.network: TimeNetwork = shape.build()
        self.network.zero_output()
        guidance = config.guidance_object()
        own_form = config.reference != NO_INITIAL and not config.reach  # as the shipped ones
        self._compares = guidance.compares
        self._steps = guidance.is_step and not own_form
        self.guidance = guidance if own_form else ReliableGuidance(of=guidance)
        """The measurement-consistency feature; another object of the same form may take its place."""
        self.initial = config.initial_object()
        """The initial reconstruction, or None; another object may take its place."""
        last = nn.Linear(128, 2)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([0.0, self._first_multiple()]))
        self.time_scale = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), last)
        width = self.network.embedding_width
        self.scan_embedding = scan_embedding(width, config.arc_direction) if config.scan_features else None
        self.refinement: Refinement | None = None
        if config.refinement is not None:  # trained first, then frozen
            self.refinement = Refinement(config.refinement).requires_grad_(False).eval()

    def _first_multiple(self) -> float:
        """``NN2`` at the start: without an initial reconstruction towards the data, by a little as in the paper."""
        if self._steps:
            return 1.0
        return 0.01 if self.initial is None else 0.0

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
            out: Tensor = self.network(torch.cat(inputs, channel_axis(inputs[0])), t, extra)
        return out.to(inputs[0].dtype)

    def _operator_images(self, condition: Condition) -> list[Tensor]:
        if not self.config.operator_images:
            return []
        if condition.images is None:
            raise ValueError("this h-transform needs the images that the operator declares: use condition_for")
        return list(condition.images.unbind(1))

    def _scan(self, condition: Condition) -> Tensor:
        if condition.features is None:
            raise ValueError("this h-transform needs the scan features of the measurement: use condition_for")
        return condition.features.to(next(self.network.parameters()))

    @torch.no_grad()
    def guidance_at(self, likelihood: Likelihood, x0: Tensor, t: Tensor) -> Tensor:
        """The measurement-consistency feature of the estimate ``x0`` at the times ``t``.

        Args:
            likelihood: the measurement with its data, in the prior's range.
            x0: Tweedie estimate of the prior, ``(B, *image_shape)``.
            t: ``(B,)``.

        Returns:
            Of the shape of ``x0``.

        Raises:
            ValueError: the guidance does not support the operator.
        """
        signal, noise = self.schedule.coefficients(t, x0)
        return self.guidance.of_estimate(likelihood, x0, (noise / signal).flatten().expand(len(x0)))

    @torch.no_grad()
    def refine(
        self,
        initial: Tensor,
        residual: Tensor,
        features: Tensor | None,
        images: Tensor | None = None,
        second: Tensor | None = None,
    ) -> Tensor:
        """The refined initial reconstruction, or the one given without a refinement; see :class:`Condition`.

        Args:
            initial: ``(B, *image_shape)`` in the prior's range.
            residual: its back-projected residual, by the guidance of the refinement.
            features: descriptor of the measurement, or None.
            images: those that the refinement wants of the operator, ``(B, F, *image_shape)``, or None.
            second: the second reconstruction that it wants, of the shape of ``initial``, or None.
        """
        if self.refinement is None:
            return initial
        refined = []
        for part in parts(initial, initial[0].numel()):
            with network_precision(initial.device, self.precision):
                told = [None if given is None else given[part] for given in (features, images, second)]
                refined.append(self.refinement(initial[part], residual[part], *told))
        return torch.cat(refined)

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
            x_t: ``(B, *image_shape)``.
            t: times, ``(B,)``.
            x0: Tweedie estimate of the prior.
            eps: noise estimate of the prior.
            guidance: feature of ``x0``, of the kind in the configuration.
            condition: what stays the same for a measurement.

        Returns:
            ``(x0, eps)`` given the measurement, each of the shape of ``x_t``.

        Raises:
            ValueError: the configuration needs an initial reconstruction or scan features and the condition has none.
        """
        config = self.config
        signal, sigma, gain, scale = self.noise_levels(t, x_t, condition)
        with torch.autocast(x_t.device.type, enabled=False):  # they multiply images: mixed precision is for the network
            factors = self.time_scale(timestep_embedding(t, 64)).reshape(-1, 2, *(1,) * (x_t.ndim - 1)).unbind(1)
        pull = guidance * factors[1] if config.time_scaling else torch.zeros_like(guidance)
        scaled = guidance / (scale if self._steps else config.guidance_scale)
        images = self._operator_images(condition)
        if self.initial is None:
            keep = reliable_share(sigma)
            inputs = [x_t, scaled] + ([x0 * keep] if config.use_tweedie else []) + images
            delta = pull + scale * self._evaluate(inputs, t, condition) - (1 - keep) * x0
            return x0 + delta, eps - delta / sigma
        initial, residual = condition.initial, condition.residual
        if initial is None or residual is None:
            raise ValueError(f"this h-transform needs the {config.reference!r} reconstruction of the measurement")
        variance = self.spread(condition, x_t).square()
        level = (1 + (variance - 1) * signal.square()).sqrt()  # standard deviation of x_t around it
        inputs = [(x_t - signal * initial) / level, scaled, initial, residual / config.guidance_scale]
        width = (variance + sigma.square() / (1 + 4 * sigma.square())).sqrt()
        known = x0 * reliable_share(sigma) if config.reach else x0
        if config.use_tweedie:
            inputs.append((known - initial) / width)
        if self._compares:  # both corrected by the data: what is left is in the null space
            inputs.append((known + guidance - initial - residual) / width)
        if config.reach:
            keep = reliable_share(sigma, config.reach)
            gain, pull = 1 - keep, pull * keep
        learned = self._evaluate(inputs + images, t, condition)
        delta = (gain + factors[0]) * (initial - x0) + pull + scale * learned
        return x0 + delta, eps - delta / sigma
