"""A measurement: physics, noise and units in one value, and the data term that guided methods see.

``Measurement`` speaks physical units (attenuation in 1/mm for CT). ``Likelihood`` is the same measurement with its
data ``y``, seen from the value range of a prior; it is the only thing that a guided diffusion method knows of the
physics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.scales import AffineMap, PriorRange, Scale
from deft_ct.operators.base import Operator, RowPick
from deft_ct.operators.findings import Diagnosis
from deft_ct.operators.image_values import ImageValues
from deft_ct.operators.memory import check_memory
from deft_ct.operators.noise import NoiseModel, NoNoise
from deft_ct.runtime.seeds import Key, checked_image_ids, generator_for

_INTERPOLATION = {2: "bilinear", 3: "trilinear"}


class Measurement:
    """How data come about: ``y = noise(A(x))`` for an image ``x`` in physical units.

    Args:
        operator: the forward model A.
        noise: what the detector adds; noise-free when left out.
        units: what the numbers mean, for CT a Hounsfield scale; None when images are in the prior's own range.
    """

    def __init__(self, operator: Operator, noise: NoiseModel | None = None, *, units: Scale | None = None) -> None:
        self.operator = operator
        self.noise = noise or NoNoise()
        self.units = units
        self._fine: dict[int, Operator] = {}

    def to(self, device: torch.device | str) -> Measurement:
        """The same measurement with its operator on ``device``."""
        return Measurement(self.operator.to(device), self.noise, units=self.units)

    def __getitem__(self, part: slice) -> Measurement:
        """The measurement of some images of a batch; itself unless the operator has parameters for each image.

        Raises:
            TypeError: ``part`` is not a slice.
        """
        return self._with(self.operator[part])

    def repeat(self, count: int) -> Measurement:
        """The measurement with every image of a batch ``count`` times in a row."""
        return self._with(self.operator.repeat(count))

    def select_images(self, pick: RowPick) -> Measurement:
        """The measurement of other images; see ``Operator.select_images``."""
        return self if self.operator.images is None else self._with(self.operator.select_images(pick))

    def _with(self, operator: Operator) -> Measurement:
        return self if operator is self.operator else Measurement(operator, self.noise, units=self.units)

    def simulate(self, x: Tensor, *, seed: int = 0, image_ids: Sequence[Key] | None = None, refine: int = 1) -> Tensor:
        """Simulate data of a known image.

        Args:
            x: ``(B, *image_shape)`` in physical units; half precision is computed and returned in float32.
            seed: of the noise.
            image_ids: a name for each image; its noise depends on (seed, image id) alone. By default the positions in
                the batch.
            refine: simulate on an image grid this many times finer (bilinear interpolation), so that the
                reconstruction does not use the model that made the data (the "inverse crime"). Only for operators that
                have a finer twin, see ``Operator.refined``.

        Returns:
            ``(B, C, *)`` data.

        Raises:
            TypeError: ``x`` is not a floating-point tensor.
            ValueError: the batch is empty, ``x`` is not finite or of the wrong shape, ``refine`` < 1, or the operator
                cannot be refined.
        """
        x = _floating(x, "images")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("the image holds NaN or infinite values; repair or crop it before simulating data")
        names = checked_image_ids(len(x), image_ids)
        values = 2 * len(x) * math.prod(self.operator.range_shape) + x.numel() * max(refine, 1) ** 2
        if x.device.type == "cpu":
            check_memory(
                x.element_size() * values, f"simulating data of {len(x)} images",
                "take fewer images at once, fewer views or a smaller refine",
            )  # fmt: skip
        clean = self.noise_free(x, refine=refine)
        return self.noise.sample(clean, [generator_for(seed, "noise", name) for name in names])

    def noise_free(self, x: Tensor, *, refine: int = 1) -> Tensor:
        """``A(x)``, simulated on an image grid ``refine`` times finer; see :meth:`simulate`."""
        shape = self.operator.domain_shape
        if x.ndim <= len(shape) or tuple(x.shape[-len(shape) :]) != shape:
            raise ValueError(_wrong_shape("images", shape, tuple(x.shape), volumes=self.operator.on_volumes))
        if refine == 1:
            clean: Tensor = self.operator(x)
            return clean
        fine: Tensor = self._refined(refine)(_interpolate(x, refine, 3 if self.operator.on_volumes else 2))
        return fine

    def likelihood(self, y: Tensor, prior_range: PriorRange | None = None) -> Likelihood:
        """The data term of ``y`` for images in a prior's range.

        Args:
            y: ``(B, C, *)`` data.
            prior_range: range of the prior in the unit of the scale; None when the prior's range is physical.

        Raises:
            ValueError: only one of prior and measurement has a scale; ``y`` is not finite
                or of the wrong shape.
        """
        return Likelihood(self, self.check(y), self.scale_to(prior_range))

    def scale_to(self, prior_range: PriorRange | None) -> AffineMap:
        """The map from a prior's range to physical units.

        Raises:
            ValueError: only one of the two has a scale.
        """
        if (self.units is None) != (prior_range is None):
            have, lack = ("prior", "measurement") if self.units is None else ("measurement", "prior")
            raise ValueError(
                f"the {have} has a scale (HU for CT) and the {lack} has none: both or none need one. Pass units=, for "
                "CT HounsfieldScale(), to the Measurement, or take a prior of the right kind"
            )
        return AffineMap(1.0, 0.0) if self.units is None or prior_range is None else self.units.after(prior_range)

    def check(self, y: Tensor) -> Tensor:
        """``y`` if it can be data of this measurement; half precision comes back as float32, to be computed in.

        Raises:
            TypeError: ``y`` is not a floating-point tensor.
            ValueError: ``y`` has another shape, no image at all, or values that are not finite.
        """
        y = _floating(y, "data")
        shape = self.operator.range_shape
        fits = y.ndim in (4, len(shape) + 1, len(shape) + 2) and tuple(y.shape[y.ndim - len(shape) :]) == shape
        if not fits:
            raise ValueError(_wrong_shape("data", shape, tuple(y.shape), volumes=self.operator.on_volumes))
        if self.operator.images not in (None, len(y)):
            raise ValueError(
                f"{type(self.operator).__name__} has parameters for {self.operator.images} images, and the data are of "
                f"{len(y)}: pass measurement[i:j] with y[i:j]"
            )
        if not bool(torch.isfinite(y).all()):
            bad = int((~torch.isfinite(y)).sum())
            raise ValueError(
                f"the data hold {bad} NaN or infinite values: were zero counts logged? Clip the counts before the "
                "logarithm, or mask the detector pixels"
            )
        return y

    def diagnose(self, y: Tensor) -> Diagnosis:
        """Faults that the operator finds in the data, see ``Operator.diagnose``; none for data before the log."""
        if not self.post_log(y):
            return Diagnosis()
        return self.operator.diagnose(y, None if isinstance(self.noise, NoNoise) else self.noise.weights(y))

    def post_log(self, y: Tensor) -> bool:
        """Whether the mean of such data is ``A(x)``: they are not counts, which are before the logarithm."""
        probe = torch.ones_like(y[:1])
        return torch.equal(self.noise.mean(probe), probe)

    def _refined(self, factor: int) -> Operator:
        if factor < 1:
            raise ValueError(f"refine must be at least 1, got {factor}")
        if factor not in self._fine:
            self._fine[factor] = self.operator.refined(factor)
        return self._fine[factor]

    def fit_weights(self, y: Tensor) -> Tensor:
        """Inverse variance of each entry of ``y``: the weights ``w`` of a fit ``|A x - y|^2_w + penalty(x)``.

        For noise-free data these are the nominal ones of the operator, see ``Operator.nominal_weights``.
        """
        return self.operator.nominal_weights(y) if isinstance(self.noise, NoNoise) else self.noise.weights(y)

    @property
    def image_values(self) -> ImageValues:
        """What the physical values of an image are like: what the scale says, or without one the operator."""
        return self.operator.image_values if self.units is None else self.units.image_values

    def describe(self) -> dict[str, Any]:
        """Operator, noise and units as plain values, for run records."""
        described = self.operator.describe() | {"noise": self.noise.to_dict()}
        return described if self.units is None else described | {"units": self.units.to_dict()}


def _interpolate(x: Tensor, factor: int, axes: int) -> Tensor:
    """``(B, *)`` on a grid ``factor`` times finer along the last ``axes``."""
    images = x.reshape(-1, 1, *x.shape[x.ndim - axes :])
    fine = functional.interpolate(images, scale_factor=factor, mode=_INTERPOLATION[axes], align_corners=False)
    return fine.reshape(*x.shape[: x.ndim - axes], *fine.shape[2:])


def _wrong_shape(what: str, shape: tuple[int, ...], got: tuple[int, ...], *, volumes: bool) -> str:
    """What was expected, what came and what to do.

    Args:
        what: of data or images.
        shape: of the range or the domain of the operator.
        got: the shape that came.
        volumes: whether the axes of the shape do not include a channel although there are three.
    """
    axes = "B, C" if volumes or len(shape) < 3 else "B"
    message = f"the {what} must have shape ({axes}, {', '.join(map(str, shape))}), got {got}"
    if got == shape:
        return f"{message}: put {'a batch and a channel axis' if ', ' in axes else 'a batch axis'} before them"
    if got[-len(shape) :] != shape and sorted(got[-len(shape) :]) == sorted(shape):
        return f"{message}: the axes are in another order"
    return message


def _floating(values: Tensor, what: str) -> Tensor:
    """The images or data in float32 or float64.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: an empty batch.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(
            f"the {what} must be a floating-point torch tensor in physical units, got {got}; convert integers with "
            ".float(), after the scale of their file is applied"
        )
    if values.ndim and not len(values):
        raise ValueError(f"the {what} are an empty batch, of shape {tuple(values.shape)}: pass at least one image")
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
