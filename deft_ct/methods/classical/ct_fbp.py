"""Filtered back-projection as a reconstruction method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deft_ct.methods.classical.cgls import tikhonov
from deft_ct.operators.ct import ConeGeometry, RayTransform, fbp, fdk
from deft_ct.operators.ct.filters import check_filter
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.noise import NoNoise
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor, UnsupportedError
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.search_space import Choice, Range, SearchSpace

IMAGE_STD = 0.5
"""Standard deviation of the values of an image in units of its contrast, for the damping of noisy data."""


@dataclass(frozen=True, kw_only=True)
class FBPConfig:
    """Settings of :class:`FBP`.

    Attributes:
        filter: ``"ram-lak"``, ``"shepp-logan"``, ``"cosine"``, ``"hamming"`` or ``"hann"``.
        cutoff: where the filter ends, as a fraction of the Nyquist frequency, in (0, 1].
    """

    filter: str = "hann"
    cutoff: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_filter(self.filter, self.cutoff)


class FBP(Reconstructor):
    """Filtered back-projection; for operators other than ray transforms their own pseudo-inverse.

    Noisy data of another linear operator are inverted with Tikhonov's damping, since the pseudo-inverse of a blur
    multiplies the noise many times over: ``|A x - y|_W^2 + |x|^2 / s^2`` is minimised with ``s`` half the contrast of
    the images (:class:`~deft_ct.operators.image_values.ImageValues`). Without noise it is the pseudo-inverse.
    """

    name: ClassVar[str] = "fbp"
    config_type: ClassVar[type] = FBPConfig
    search_space: ClassVar[SearchSpace] = {
        "filter": Choice(("ram-lak", "shepp-logan", "cosine", "hamming", "hann")),
        "cutoff": Range(0.2, 1.0),
    }

    def _check(self, request: Request) -> None:
        operator = request.measurement.operator
        if not operator.has_pseudo_inverse:
            raise UnsupportedError(
                f"{self.name} is the pseudo-inverse of the operator, {type(operator).__name__} has none"
            )

    def _estimate(self, request: Request) -> Estimate:
        operator, config = request.measurement.operator, self.config
        if isinstance(operator, RayTransform) and isinstance(operator.geometry, PlanarGeometry):
            return Estimate(mean=fbp(request.y, operator.geometry, config.filter, config.cutoff))
        if isinstance(operator, RayTransform) and isinstance(operator.geometry, ConeGeometry):
            return Estimate(mean=fdk(request.y, operator.geometry, config.filter, config.cutoff))
        if isinstance(operator, LinearOperator) and not isinstance(request.measurement.noise, NoNoise):
            measurement = request.measurement
            damped, info = tikhonov(
                request.y,
                operator,
                weights=measurement.noise.weights(request.y),
                strength=(IMAGE_STD * measurement.image_values.contrast) ** -2,
                penalty="identity",
            )
            return Estimate(mean=damped, record={"solver": info.record()})
        return Estimate(mean=operator.pseudo_inverse(request.y))
