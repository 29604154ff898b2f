"""The likelihood of data: what a guided diffusion method knows of the physics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deft_ct.measurement.scales import PerImageMap

if TYPE_CHECKING:
    from deft_ct.measurement.measurement import Measurement


from typing import Literal

import torch
from torch import Tensor

from deft_ct.measurement.scales import AffineMap
from deft_ct.operators.base import LinearOperator
from deft_ct.operators.noise import NoNoise

GuidanceKind = Literal["score", "adjoint", "fbp", "data", "cg", "split"]
"""Features of the h-transform: see :meth:`Likelihood.guidance`; ``htransform.guidance`` for ``cg`` and ``split``."""


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
        """Numbers that a network is conditioned on, ``(B, F)``; see ``Operator.features``."""
        return self.operator.features(self.y, self.noise_weights)

    @property
    def noise_weights(self) -> Tensor | None:
        """:attr:`weights`, but None for noise-free data."""
        return None if isinstance(self.noise, NoNoise) else self.weights

    def repeat(self, count: int) -> Likelihood:
        """The likelihood with every image repeated ``count`` times in a row, for several samples of each."""
        to_physical = self.to_physical
        if isinstance(to_physical, PerImageMap):
            to_physical = to_physical.repeat(count)
        return Likelihood(self.measurement, self.y.repeat_interleave(count, 0), to_physical)

    def __getitem__(self, part: slice) -> Likelihood:
        """The likelihood of some of the images."""
        to_physical = self.to_physical
        if isinstance(to_physical, PerImageMap):
            to_physical = PerImageMap(to_physical.scale[part], to_physical.offset[part])
        return Likelihood(self.measurement, self.y[part], to_physical)

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

    def guidance(self, x0: Tensor, kind: GuidanceKind) -> Tensor:
        """The measurement-consistency feature that the h-transform sees, of the shape of ``x0``.

        Kinds:
            ``"score"``: the gradient of the log likelihood (DEFT eq. 12); its scale depends on noise and geometry.
            ``"adjoint"``: the weighted back-projection of the residual, divided by its response to a constant image
            (one SIRT step), so in the units of ``x0`` whatever the scan.
            ``"fbp"``: the pseudo-inverse (for CT, filtered back-projection) of the residual, in the units of ``x0``.
            ``"data"``: the pseudo-inverse of the data, in the range of ``x0``; it does not depend on ``x0``. It is
                ``A* y`` in the ablation of the DEFT paper; for CT, its code uses filtered back-projection as ``A*``.

        Raises:
            ValueError: the kind is unknown, or depends on the noise level (``htransform.guidance`` has those).
        """
        if kind == "data":
            return self._pseudo_inverse_of_data().to(x0)
        if kind == "score":
            return self.score(x0)
        if kind == "fbp":
            return self.operator.pseudo_inverse(self.residual(x0)) / self.to_physical.scale
        if kind == "adjoint":
            physical = self.to_physical(x0)
            gradient = self.operator.vjp(physical, self.weights * self.residual(x0))
            if not isinstance(self.operator, LinearOperator):
                return gradient * self.to_physical.scale
            response = self.operator.adjoint(self.weights * self.operator(torch.ones_like(x0)))
            floor = 1e-3 * response.amax((-2, -1), keepdim=True)
            return gradient / (response.clamp_min(floor) * self.to_physical.scale)
        raise ValueError(
            f"unknown guidance {kind!r}; known here: score, adjoint, fbp, data (cg and split: htransform.guidance)"
        )

    @torch.no_grad()
    def _pseudo_inverse_of_data(self) -> Tensor:
        if self._inverse is None:
            self._inverse = self.to_physical.inverse(self.operator.pseudo_inverse(self.y))
        return self._inverse
