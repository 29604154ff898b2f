"""Our methods where deepinv expects a reconstruction network: a module that is called with data and physics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import Scale
from deft_ct.operators.interop import FromDeepinv
from deft_ct.operators.noise import GaussianNoise, NoiseModel
from deft_ct.reconstructor import Reconstructor

__all__ = ["DeepinvReconstructor"]


class DeepinvReconstructor(nn.Module):
    """A reconstruction method for deepinv's ``test``, ``Trainer`` and pipelines: ``model(y, physics)`` is the image.

    It does not import deepinv.

    Args:
        reconstructor: the method.
        measurement: of the data, where it is known on our side: operator, noise and units. The physics of the call is
            then ignored. If None, the physics is wrapped: its ``A`` and ``A_adjoint`` are the operator, which must be
            linear, and the ``sigma`` of its noise model, if there is one, is the level of the noise.
        seed: of the sampling.
        units: of the images of a wrapped physics; None for images in the prior's range.
    """

    def __init__(
        self, reconstructor: Reconstructor, measurement: Measurement | None = None, *, seed: int = 0,
        units: Scale | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.reconstructor = reconstructor
        self.measurement, self.seed, self.units = measurement, seed, units

    def forward(self, y: Tensor, physics: Any = None, **_: Any) -> Tensor:
        """Reconstruct.

        Args:
            y: ``(B, C, *)`` data.
            physics: deepinv's physics of the data; needed where no measurement was given.

        Returns:
            ``(B, C, H, W)``, the mean.

        Raises:
            ValueError: neither a measurement nor a linear physics is there.
            UnsupportedError: the method cannot be used with it.
        """
        measurement = self.measurement if self.measurement is not None else self._wrapped(y, physics)
        return self.reconstructor.reconstruct(y, measurement, seed=self.seed).mean

    def _wrapped(self, y: Tensor, physics: Any) -> Measurement:
        if physics is None or not hasattr(physics, "A_adjoint"):
            raise ValueError("expected deepinv's linear physics as the second argument, or a measurement at the start")
        with torch.no_grad():
            shape = tuple(physics.A_adjoint(y[:1]).shape[1:])
        operator = FromDeepinv(physics, shape, tuple(y.shape[1:]))
        return Measurement(operator, _noise_of(physics), units=self.units)


def _noise_of(physics: Any) -> NoiseModel | None:
    sigma = getattr(getattr(physics, "noise_model", None), "sigma", None)
    level = None if sigma is None else torch.as_tensor(sigma).flatten()
    if level is None or not bool((level > 0).all()):
        return None
    if len(level) > 1 and not bool((level == level[0]).all()):
        raise ValueError(f"expected one level of noise for all images, got {level.tolist()[:8]}")
    return GaussianNoise(float(level[0]))
