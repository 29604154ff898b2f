"""The quick reconstructions that networks start from."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from deft_ct.classical.tv import total_variation
from deft_ct.measurement import Likelihood
from deft_ct.operators.base import LinearOperator
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.redundancy import missing_fraction

Reference = Literal["fbp", "tv"]

TV_STRENGTH = 5.0
"""Weight of the total variation per unit of the prior's range: 250 per 1/mm for a range of 1000 HU a unit."""
TV_EXPONENT = 0.4
"""For CT the weight grows with this power of the photons, from :data:`TV_STRENGTH` at 1e5: the best on val is about 2.5
at 1e4 and 15 to 20 at 1e6, whatever the number of views and the angular range. Worth 0.3 dB at both ends."""
TV_ITERATIONS = 16
"""Within 0.8 dB of 40 iterations for full parallel scans; a network does the rest, and training computes it at every
step."""
TV_ITERATIONS_FAN = 40
"""At least, for fan beams, where 16 iterations lose 2 dB: the preconditioner fits these scans less well."""
TV_ITERATIONS_LIMITED = 100
"""At least, where views are missing: over 120 degrees 40 iterations lose another 1.4 dB."""
_PHOTONS = (1e3, 1e7)


@torch.no_grad()
def reference_reconstruction(likelihood: Likelihood, kind: Reference, *, iterations: int = TV_ITERATIONS) -> Tensor:
    """Reconstruct the data of a likelihood without a network.

    Args:
        likelihood: the measurement with its data.
        kind: ``"fbp"`` for the pseudo-inverse (Ram-Lak FBP for CT), ``"tv"`` for a few iterations of total variation,
            weighted by the noise.
        iterations: of TV; at least :data:`TV_ITERATIONS_FAN` for fan beams and
            :data:`TV_ITERATIONS_LIMITED` for limited angles.

    Returns:
        ``(B, C, H, W)`` in the range of the likelihood's images.

    Raises:
        ValueError: the kind is unknown, the data are not on the scale of the operator (counts before the logarithm),
            or TV is asked for and the operator is not linear.
    """
    if not likelihood.measurement.post_log(likelihood.y):
        raise ValueError(
            f"the {kind} reference needs post-log data, {type(likelihood.noise).__name__} here is before the "
            "logarithm: take -log of the transmittance and post_log=True"
        )
    if kind == "fbp":
        return likelihood.to_physical.inverse(likelihood.operator.pseudo_inverse(likelihood.y))
    if kind != "tv":
        raise ValueError(f"unknown reference {kind!r}; known: fbp, tv")
    operator = likelihood.operator
    if not isinstance(operator, LinearOperator):
        raise ValueError(f"the TV reference needs a linear operator, got {type(operator).__name__}")
    scale = likelihood.to_physical.scale
    strength = torch.as_tensor(TV_STRENGTH, device=likelihood.y.device)
    strength = strength / (scale[:, :, 0, 0] if isinstance(scale, Tensor) else scale)
    if isinstance(operator, RayTransform):
        photons = likelihood.photons.clamp(*_PHOTONS).to(likelihood.y)
        strength = strength * (photons.reshape(-1, *[1] * (likelihood.y.ndim - 3)) / 1e5) ** TV_EXPONENT
        iterations = max(iterations, _least_iterations(operator))
    weights = likelihood.measurement.fit_weights(likelihood.y)
    mu, _ = total_variation(
        likelihood.y, operator, weights=weights, strength=strength, iterations=iterations, tolerance=0.0
    )
    return likelihood.to_physical.inverse(mu)


def _least_iterations(operator: RayTransform) -> int:
    geometry = operator.geometry
    if not isinstance(geometry, ParallelGeometry | FanGeometry):
        return TV_ITERATIONS_FAN
    if missing_fraction(geometry) > 0.02:
        return TV_ITERATIONS_LIMITED
    return 1 if isinstance(geometry, ParallelGeometry) else TV_ITERATIONS_FAN
