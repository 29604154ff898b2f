"""Scale factor and floor that give posterior intervals their nominal coverage; stored with the h-transform.

``std_calibrated^2 = c^2 (factor^2 std^2 + floor^2)``. Both are fitted on validation slices. The floor is for pixels in
which all of a few samples happen to agree. ``c = q / z`` accounts for the small number of samples
(:mod:`deft_ct.evaluation.spread`). With exact samples the factor is 1 for any number of them, and ``+- 1.645
std_calibrated`` covers 90 %. A floor makes the standard deviations more alike, and its effect depends on the number of
samples. A pair of factor and floor therefore holds for one number of samples only. Only the width is corrected. If
samples agree and are wrong, the calibrated value covers the error only on average.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.trained_range import outside_training
from deft_ct.measurement.measurement import Measurement
from deft_ct.runtime.intervals import interval_factor, normal_factor
from deft_ct.runtime.stored_record import StoredRecord

Spread = TypeVar("Spread", NDArray[np.floating[Any]], Tensor)


class Sized(Protocol):
    """What was fitted on images of a size."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(H, W)``, empty for any size."""


Fit = TypeVar("Fit", bound=Sized)

LARGEST_RATIO = 1.5
"""Sides of images may differ by this factor from those of the fit. So fits at 256 and 512 pixels serve 171 to 768."""

PATTERN = "calibration*.json"
"""Files in the folder of an h-transform that are read with it."""


def size_distance(fitted: Sequence[int], image_shape: Sequence[int]) -> float:
    """How far the size of an image is from that of a fit: logarithm of the largest ratio of their sides.

    Args:
        fitted: ``(H, W)``; empty for a fit that holds for any size, which gives 0.
        image_shape: of the image; its last two axes count.
    """
    sides = zip(fitted, image_shape[-2:], strict=True) if fitted else ()
    return max((abs(math.log(own / side)) for side, own in sides), default=0.0)


def nearest_in_size(fits: Iterable[Fit], image_shape: Sequence[int]) -> list[Fit]:
    """The fits whose images are of about a size, nearest first.

    Args:
        fits: each with its ``image_shape``.
        image_shape: of the image.
    """
    found = [(size_distance(one.image_shape, image_shape), one) for one in fits]
    near = [(distance, one) for distance, one in found if distance <= math.log(LARGEST_RATIO)]
    return [one for _, one in sorted(near, key=lambda pair: pair[0])]


@dataclass(frozen=True, kw_only=True)
class SpreadCalibration(StoredRecord):
    """The calibration of one h-transform for one scan and one way to sample.

    Args:
        factor: multiplies the spread of the samples.
        floor_hu: is added in quadrature, in HU.
        samples: of each slice, when it was fitted; 0 when unknown.
        around_samples: whether the reconstruction is the mean of the samples.
        level: coverage that was fitted.
        scan: the scan that it was fitted on, as ``Scan.to_dict``.
        image_shape: ``(H, W)`` of the slices that it was fitted on; empty where it holds for any size.
        settings: configuration of the sampler, what changes results.
        htransform_sha256: of the h-transform.
        prior_sha256: of the prior.
        provenance: data, slices, seed, samples, level, coverage before and after, versions.

    Raises:
        ValueError: a number is negative or not finite, or both are zero.
    """

    noun: ClassVar[str] = "a calibration"

    factor: float
    floor_hu: float = 0.0
    samples: int = 0
    around_samples: bool = True
    level: float = 0.9
    scan: dict[str, Any] = field(default_factory=dict)
    image_shape: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    htransform_sha256: str = ""
    prior_sha256: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = (float(self.factor), float(self.floor_hu))
        if not 0 < self.level < 1 or self.samples < 0:
            raise ValueError(f"expected 0 < level < 1 and samples >= 0, got {self.level} and {self.samples}")
        if any(side < 1 for side in self.image_shape):
            raise ValueError(f"image_shape must hold sides of at least 1, got {self.image_shape}")
        if not (np.isfinite(values).all() and min(values) >= 0 and max(values) > 0):
            raise ValueError(f"factor and floor_hu must be finite, not negative and not both 0, got {values}")

    @property
    def record(self) -> dict[str, Any]:
        """Entries of the record of a result that is calibrated by it."""
        return {
            "calibrated": True, "factor": self.factor, "floor_hu": self.floor_hu, "level": self.level, **self.provenance
        }  # fmt: skip

    def rescaled(self, std: Spread, count: int) -> Spread:
        """The calibrated standard deviation in HU.

        Args:
            std: of the samples in HU, an array or a tensor of any shape.
            count: how many samples.
        """
        few = interval_factor(self.level, count, around_samples=self.around_samples) / normal_factor(self.level)
        return (self.factor**2 * std**2 + self.floor_hu**2) ** 0.5 * few

    def differences(
        self, *, htransform_sha256: str, prior_sha256: str, settings: Mapping[str, Any], samples: int
    ) -> list[str]:
        """Why it does not hold for these networks and settings: one phrase each, empty when it does."""
        found = [
            f"another {name}"
            for name, here, fitted in (
                ("h-transform", htransform_sha256, self.htransform_sha256),
                ("prior", prior_sha256, self.prior_sha256),
            )
            if here != fitted
        ]
        plain = json.loads(json.dumps(dict(settings)))
        changed = sorted(k for k in plain.keys() | self.settings.keys() if plain.get(k) != self.settings.get(k))
        found += [f"another {', '.join(changed)}"] if changed else []
        return found + (["another number of samples"] if self.floor_hu and samples != self.samples else [])


def fitting(
    calibrations: Sequence[SpreadCalibration], measurement: Measurement, image_shape: Sequence[int], **own: Any
) -> SpreadCalibration | str:
    """The calibration that holds for a measurement, or why none does.

    Args:
        calibrations: that are stored with an h-transform.
        measurement: of the request.
        image_shape: of one image.
        own: networks, settings and number of samples, see :meth:`SpreadCalibration.differences`.
    """
    near = nearest_in_size(calibrations, image_shape)
    reasons = [] if near else ["images of another size"]
    for calibration in near:
        scan = {"scan": calibration.scan} if calibration.scan else {}
        reasons = [f"it was {text}" for text in outside_training(scan, measurement)] + calibration.differences(**own)
        if not reasons:
            return calibration
    return f"fitted for something else: {'; '.join(reasons)}"
