"""The likelihood of data: what a guided diffusion method knows of the physics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deft_ct.measurement.scales import AffineMap, PerImageMap
from deft_ct.operators.base import RowPick
from deft_ct.operators.noise import NoNoise

if TYPE_CHECKING:
    from deft_ct.measurement.measurement import Measurement


class Likelihood:
    """``p(y | x0)`` for images ``x0`` in the range of a prior.

    Args:
        measurement: physics and noise.
        y: ``(B, C, *)`` data.
        to_physical: map from the prior's range to physical units. Its scale and offset may also be tensors
            ``(B, 1, 1, 1)``, one for each image.
    """

    def __init__(self, measurement: Measurement, y: Tensor, to_physical: AffineMap | PerImageMap) -> None:
        self.measurement = measurement
        self.operator = measurement.operator
        self.noise = measurement.noise
        self.y = y
        self.to_physical = to_physical
        self.grouped = 1.0
        """Rows of the data (views of a scan) that count as one in what the operator says of them, see :meth:`told`."""
        self._weights: Tensor | None = None
        self._inverse: Tensor | None = None

    @property
    def weights(self) -> Tensor:
        """Inverse variance of each entry of ``y``."""
        if self._weights is None:
            self._weights = self.noise.weights(self.y)
        return self._weights

    @property
    def features(self) -> Tensor:
        """Descriptor of the measurement that a network is conditioned on, ``(B, F)``; see ``Operator.features``."""
        return self.operator.features(self.y, self.noise_weights)

    @property
    def noise_weights(self) -> Tensor | None:
        """:attr:`weights` for a description of the data: None for noise-free data, and see :meth:`told`."""
        if isinstance(self.noise, NoNoise):
            return None
        return self.weights if self.grouped == 1.0 else self.weights * self.grouped

    def told(self, grouped: float) -> Likelihood:
        """The same data, described as if groups of rows were averaged to one of larger weight.

        What the operator says of the strength of the noise then follows (``Operator.features`` and
        ``Operator.regularisation_hint``); data, operator, noise and :attr:`weights` do not change.

        Args:
            grouped: rows that count as one.
        """
        if grouped == self.grouped:
            return self
        out = self.select_images(lambda values: values)
        out.grouped = grouped
        return out

    def select_images(self, pick: RowPick) -> Likelihood:
        """The likelihood of other images, with what is known of them already.

        Args:
            pick: maps a tensor ``(B, *)`` to the rows of the other images.
        """
        to_physical = self.to_physical
        if isinstance(to_physical, PerImageMap):
            to_physical = PerImageMap(pick(to_physical.scale), pick(to_physical.offset))
        out = Likelihood(self.measurement.select_images(pick), pick(self.y), to_physical)
        out._weights = None if self._weights is None else pick(self._weights)
        out._inverse = None if self._inverse is None else pick(self._inverse)
        out.grouped = self.grouped
        return out

    def repeat(self, count: int) -> Likelihood:
        """The likelihood with every image repeated ``count`` times in a row, for several samples of each."""
        return self.select_images(lambda values: values.repeat_interleave(count, 0))

    def __getitem__(self, part: slice) -> Likelihood:
        """The likelihood of some of the images."""
        return self.select_images(lambda values: values[part])

    def forward(self, x0: Tensor) -> Tensor:
        """Noise-free data of an image in the prior's range."""
        out: Tensor = self.operator(self.to_physical(x0))
        return out

    def residual(self, x0: Tensor) -> Tensor:
        """``y - A(x0)``."""
        return self.y - self.noise.mean(self.forward(x0))

    def log_prob(self, x0: Tensor) -> Tensor:
        """``ln p(y | x0)``, shape ``(B,)``."""
        return self.noise.log_likelihood(self.forward(x0), self.y)

    def score(self, x0: Tensor) -> Tensor:
        """``grad_x0 ln p(y | x0)``, the true gradient of the noise model, of the shape of ``x0``."""
        physical = self.to_physical(x0)
        gradient = self.noise.score(self.operator(physical), self.y)
        return self.operator.vjp(physical, gradient) * self.to_physical.scale

    def pseudo_inverse(self) -> Tensor:
        """The pseudo-inverse of the data, for CT filtered back-projection; computed once, unless it needs gradients.

        Returns:
            ``(B, *image_shape)`` in the prior's range.

        Raises:
            TypeError: the operator has no pseudo-inverse.
        """
        if self.y.requires_grad and torch.is_grad_enabled():
            return self.to_physical.inverse(self.operator.pseudo_inverse(self.y))
        if self._inverse is None:
            with torch.no_grad():
                self._inverse = self.to_physical.inverse(self.operator.pseudo_inverse(self.y))
        return self._inverse
