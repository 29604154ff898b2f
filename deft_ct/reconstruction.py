"""The result of a reconstruction method, and the request that it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from deft_ct.measurement.measurement import Measurement
from deft_ct.runtime.seeds import Key


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """The result of a method, in the physical units of the measurement (attenuation in 1/mm for CT).

    Attributes:
        mean: ``(B, *image_shape)``, the reconstruction; the mean of the samples for a sampling method.
        std: ``(B, *image_shape)``, pixelwise spread of the samples; None with fewer than two of them. As they are, or
            rescaled by a calibration: ``provenance["spread"]`` says which.
        samples: ``(B, S, *image_shape)``, draws from the posterior; None for a method that gives one answer.
        provenance: JSON-ready record of method, configuration, seed, measurement, versions, cost and data residual.
        measurement: what the data were taken with.
    """

    mean: Tensor
    std: Tensor | None
    samples: Tensor | None
    provenance: dict[str, Any]
    measurement: Measurement = field(repr=False)

    @property
    def in_units(self) -> InUnits:
        """Mean, spread and samples in the unit of the measurement's scale, HU for CT.

        Raises:
            ValueError: the measurement has no scale.
        """
        scale = self.measurement.units
        if scale is None:
            raise ValueError(
                "this measurement has no scale, so its values have no other unit: pass units=, for CT "
                "HounsfieldScale(), to Measurement"
            )
        affine = scale.affine
        return InUnits(
            unit=scale.unit,
            mean=affine.inverse(self.mean),
            std=None if self.std is None else self.std / affine.scale,
            samples=None if self.samples is None else affine.inverse(self.samples),
        )


@dataclass(frozen=True, kw_only=True)
class InUnits:
    """Values of a reconstruction in the unit of its scale; shapes as in :class:`Reconstruction`."""

    unit: str
    mean: Tensor
    std: Tensor | None
    samples: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a method's own code returns, in physical units; mean or samples may be left out, not both.

    Attributes:
        mean: ``(B, *image_shape)``; the mean of the samples when left out.
        samples: ``(B, S, *image_shape)``.
        std: ``(B, *image_shape)``; the spread of the samples when left out.
        record: more for the provenance.
        judged: ``(B, *image_shape)``, what is compared with the images of the training; the mean when left out.
    """

    mean: Tensor | None = None
    samples: Tensor | None = None
    std: Tensor | None = None
    record: dict[str, Any] = field(default_factory=dict)
    judged: Tensor | None = None

    def cleared(self, unseen: Tensor) -> Estimate:
        """With zeros in mean, samples and spread where a mask of the shape of the domain is set."""

        def zeroed(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.masked_fill(unseen.to(values.device), 0.0)

        record = self.record | {"unseen_pixels": int(unseen.sum())}
        images = {name: zeroed(getattr(self, name)) for name in ("mean", "samples", "std", "judged")}
        return Estimate(**images, record=record)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a method, checked.

    Attributes:
        y: data ``(B, C, *)``.
        measurement: physics, noise, units.
        num_samples: draws wanted for each image.
        seed: of all randomness.
        image_ids: a name for each image; its randomness depends on (seed, image id) alone.
        progress: whether to show progress bars.
    """

    y: Tensor
    measurement: Measurement
    num_samples: int
    seed: int
    image_ids: list[Key]
    progress: bool

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image: the channel axes of the data that the operator does not see, then its domain."""
        operator = self.measurement.operator
        return (*self.y.shape[1 : self.y.ndim - len(operator.range_shape)], *operator.domain_shape)
