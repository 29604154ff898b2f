"""A measurement: physics, noise and units in one value, and the data term that guided methods see.

``Measurement`` speaks physical units (attenuation in 1/mm for CT). ``Likelihood`` is the same measurement with its
data ``y``, seen from the value range of a prior; it is the only thing that a guided diffusion method knows of the
physics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from deft_ct.operators.base import LinearOperator, Operator
from deft_ct.operators.ct import RayTransform, detector_shift
from deft_ct.operators.noise import NoiseModel, NoNoise, PoissonNoise
from deft_ct.seeds import Key, generator_for, image_keys
from deft_ct.units import AffineMap, HounsfieldScale, PriorRange

GuidanceKind = Literal["score", "adjoint", "fbp", "data", "cg", "split"]
"""Features of the h-transform: see :meth:`Likelihood.guidance`; ``htransform.guidance`` for ``cg`` and ``split``."""

NOISE_FREE_PHOTONS = 1e6
"""What noise-free CT data count as where a noise level is needed: errors of the model outweigh noise from there on."""


class Measurement:
    """How data come about: ``y = noise(A(x))`` for an image ``x`` in physical units.

    Args:
        operator: the forward model A.
        noise: what the detector adds; noise-free when left out.
        units: for CT, the Hounsfield scale that ties 1/mm to HU; None when images are in the prior's own range.
    """

    def __init__(
        self, operator: Operator, noise: NoiseModel | None = None, *, units: HounsfieldScale | None = None
    ) -> None:
        self.operator = operator
        self.noise = noise or NoNoise()
        self.units = units
        self._fine: dict[int, RayTransform] = {}

    def to(self, device: torch.device | str) -> Measurement:
        """The same measurement with its operator on ``device``."""
        return Measurement(self.operator.to(device), self.noise, units=self.units)

    def simulate(self, x: Tensor, *, seed: int = 0, keys: Sequence[Key] | None = None, refine: int = 1) -> Tensor:
        """Simulate data of a known image.

        Args:
            x: ``(B, C, H, W)`` in physical units.
            seed: of the noise.
            keys: a name for each image; its noise depends on (seed, key) alone. Positions in the batch by default.
            refine: simulate on an image grid this many times finer (bilinear interpolation), so that the
                reconstruction does not use the model that made the data (the "inverse crime"). CT only.

        Returns:
            ``(B, C, *)`` data.

        Raises:
            ValueError: ``x`` is not finite, ``refine`` < 1, or the operator cannot be refined.
        """
        if not bool(torch.isfinite(x).all()):
            raise ValueError("the image holds NaN or infinite values; repair or crop it before simulating data")
        names = image_keys(len(x), keys)
        clean = self.operator(x) if refine == 1 else self._refined(refine)(_interpolate(x, refine))
        return self.noise.sample(clean, [generator_for(seed, "noise", name) for name in names])

    def likelihood(self, y: Tensor, prior_range: PriorRange | None = None) -> Likelihood:
        """The data term of ``y`` for images in a prior's range.

        Args:
            y: ``(B, C, *)`` data.
            prior_range: HU range of the prior; None when the prior's range is physical.

        Raises:
            ValueError: a CT measurement meets a prior without HU range, or the other way round; ``y`` is not finite
                or of the wrong shape.
        """
        self.check(y)
        return Likelihood(self, y, self.scale_to(prior_range))

    def scale_to(self, prior_range: PriorRange | None) -> AffineMap:
        """The map from a prior's range to physical units.

        Raises:
            ValueError: only one of the two has HU.
        """
        if (self.units is None) != (prior_range is None):
            raise ValueError(
                "the prior and the measurement must both be in HU or both not: pass units=HounsfieldScale() to the "
                "Measurement of a CT scan, or take a prior of the right kind"
            )
        return AffineMap(1.0, 0.0) if self.units is None or prior_range is None else self.units.after(prior_range)

    def check(self, y: Tensor) -> None:
        """Raise a ValueError unless ``y`` can be data of this measurement."""
        shape = self.operator.range_shape
        fits = (
            isinstance(y, Tensor) and y.ndim in (4, len(shape) + 1) and tuple(y.shape[y.ndim - len(shape) :]) == shape
        )
        if not fits:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"the data must have shape (B, C, {', '.join(map(str, shape[-2:]))}), got {got}")
        if not bool(torch.isfinite(y).all()):
            bad = int((~torch.isfinite(y)).sum())
            raise ValueError(
                f"the data hold {bad} NaN or infinite values: were zero counts logged? Clip the counts before the "
                "logarithm, or mask the detector pixels"
            )

    def detector_shift(self, y: Tensor) -> float | None:
        """See :func:`deft_ct.operators.ct.detector_shift`; None for data that are not line integrals, too."""
        if not isinstance(self.operator, RayTransform) or not self.post_log(y):
            return None
        return detector_shift(y, self.operator.geometry)

    def post_log(self, y: Tensor) -> bool:
        """Whether the mean of such data is ``A(x)``: they are not counts, which are before the logarithm."""
        probe = torch.ones_like(y[:1])
        return torch.equal(self.noise.mean(probe), probe)

    def _refined(self, factor: int) -> Operator:
        if factor < 1:
            raise ValueError(f"refine must be at least 1, got {factor}")
        if not isinstance(self.operator, RayTransform):
            raise ValueError(f"{type(self.operator).__name__} cannot be simulated on a finer grid; use refine=1")
        if factor not in self._fine:
            self._fine[factor] = RayTransform(
                self.operator.geometry.refined(factor), self.operator.backend, kernel=self.operator.kernel
            )
        return self._fine[factor]

    def fit_weights(self, y: Tensor) -> Tensor:
        """Inverse variance of each entry of ``y``: the weights ``w`` of a fit ``|A x - y|^2_w + penalty(x)``.

        Noise-free line integrals count as those of :data:`NOISE_FREE_PHOTONS`, because the ones that they have by
        convention would let any penalty that suits noisy scans flatten the image.
        """
        if isinstance(self.noise, NoNoise) and isinstance(self.operator, RayTransform):
            return PoissonNoise(photons=NOISE_FREE_PHOTONS).weights(y)
        return self.noise.weights(y)


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
    def photons(self) -> Tensor:
        """``(B,)`` photons of an unattenuated ray with which photon noise would be as strong, for line integrals ``y``.

        Photon noise has the weights ``photons * exp(-y)``, so this is the geometric mean of ``weights * exp(y)``; for
        noise-free data, :data:`NOISE_FREE_PHOTONS`.
        """
        if isinstance(self.noise, NoNoise):
            return torch.full((len(self.y),), NOISE_FREE_PHOTONS, device=self.y.device)
        seen = self.weights > 0
        logs = torch.where(seen, self.weights.double(), 1.0).log() + torch.where(seen, self.y.double(), 0.0)
        return (logs.flatten(1).sum(1) / seen.flatten(1).sum(1).clamp_min(1)).exp()

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
            ``"data"``: the pseudo-inverse of the data themselves, in the range of ``x0``, which it does not depend on:
                ``A* y`` in the ablation of the paper, whose CT code takes filtered back-projection for ``A*``, too.

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


class PerImageMap:
    """``y = scale * x + offset`` with a scale and an offset for each image of a batch, ``(B, 1, 1, 1)`` each."""

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        self.scale = scale
        self.offset = offset

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the map to ``(B, C, H, W)``."""
        return self.scale * x + self.offset

    def inverse(self, y: Tensor) -> Tensor:
        """Solve for ``x``."""
        return (y - self.offset) / self.scale

    def repeat(self, count: int) -> PerImageMap:
        """Every image ``count`` times in a row."""
        return PerImageMap(self.scale.repeat_interleave(count, 0), self.offset.repeat_interleave(count, 0))


def _interpolate(x: Tensor, factor: int) -> Tensor:
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def describe(measurement: Measurement) -> dict[str, Any]:
    """The measurement as plain values, for run records."""
    operator = measurement.operator
    described: dict[str, Any] = {"operator": type(operator).__name__, "noise": measurement.noise.to_dict()}
    if isinstance(operator, RayTransform):
        described |= {"geometry": operator.geometry.to_dict(), "backend": operator.backend, "kernel": operator.kernel}
    if measurement.units is not None:
        described["units"] = {"mu_water_per_mm": measurement.units.mu_water, "mu_air_per_mm": measurement.units.mu_air}
    return described
