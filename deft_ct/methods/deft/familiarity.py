"""Whether an image, and its data, are like those of validation: two numbers, and limits from validation slices.

- **Fit of the prior.** Noise of the level :data:`NOISE` (over the signal, in the prior's range) is added to the
  reconstruction, and the prior removes it in one evaluation. The fit is the median distance of its answer from the
  reconstruction, inside the object. A prior that knows what it sees comes close; on a skull that it has never seen it
  does not. An image without any structure is closer than anatomy ever is, so there is a limit on both sides.
- **Unexplained residual.** ``sqrt(max(0, r^2 - n^2))`` with the relative data residual ``r`` of the reconstruction and
  the part ``n`` that the noise explains. A shifted detector or wrong angles leave data that no image explains.

Limits are quantiles over validation slices. An image larger than the prior's is averaged down to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.residual import noise_residuals, relative_residuals
from deft_ct.operators.findings import Finding
from deft_ct.reconstruction import Request
from deft_ct.runtime.seeds import Key, generator_for, normal_like
from deft_ct.runtime.stored_record import StoredRecord

FILE = "familiarity.json"
"""In the folder of an h-transform."""
NOISE = 0.4
UNFAMILIAR = "unlike the training images"
MISFIT = "data explained worse than usual"
LEAST_INSIDE = 0.01
"""Share of the pixels inside of the object below which an image is not judged."""
_INSIDE = -0.5


@dataclass(frozen=True, kw_only=True)
class Familiarity(StoredRecord):
    """Limits from validation slices.

    Args:
        fit: lowest and highest fit of the prior, in its range.
        residual: highest unexplained residual.
        prior_sha256: of the prior.
        htransform_sha256: of the h-transform.
        provenance: data, scans, slices, quantile.

    Raises:
        ValueError: the limits are not in order.
    """

    noun: ClassVar[str] = "a file of limits"

    fit: tuple[float, float]
    residual: float
    prior_sha256: str = ""
    htransform_sha256: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.fit[0] < self.fit[1] or not self.residual > 0:
            raise ValueError(f"expected 0 <= fit[0] < fit[1] and residual > 0, got {self.fit} and {self.residual}")

    @classmethod
    def of(cls, fits: Sequence[float | None], residuals: Sequence[float], quantile: float, **known: Any) -> Familiarity:
        """Limits from validation slices.

        Args:
            fits: of the slices, None where one was not judged.
            residuals: of the slices.
            quantile: of the upper limits; that of the lower one is 1 minus it.
            known: the other fields.
        """
        judged = [fit for fit in fits if fit is not None]
        low, high = np.quantile(judged, [1 - quantile, quantile])
        return cls(fit=(float(low), float(high)), residual=float(np.quantile(residuals, quantile)), **known)

    def findings(self, fits: Sequence[float | None], residuals: Sequence[float]) -> tuple[Finding, ...]:
        """What is outside of the limits in more than half of the images; neighbours of a series are much alike.

        Args:
            fits: of the images, None where an image was not judged.
            residuals: unexplained residuals of the images.
        """
        found = []
        strange = [k for k, fit in enumerate(fits) if fit is not None and not self.fit[0] <= fit <= self.fit[1]]
        if 2 * len(strange) > len(fits):
            values = [fit for fit in (fits[k] for k in strange) if fit is not None]
            worst = max(values, key=lambda fit: max(fit / self.fit[1], self.fit[0] / max(fit, 1e-9)))
            found.append(Finding(
                UNFAMILIAR,
                f"the prior changes the images at {strange} (counted from 0) by {worst:.3g} of its range when it "
                f"removes noise from them, and validation slices by {self.fit[0]:.3g} to {self.fit[1]:.3g}: they may "
                "show what the networks have not seen, and then the spread is not to be trusted either; compare with "
                "FBP or TV",
            ))  # fmt: skip
        missed = [k for k, residual in enumerate(residuals) if residual > self.residual]
        if 2 * len(missed) > len(residuals):
            found.append(Finding(
                MISFIT,
                f"a part of {max(residuals):.2g} of the data of the images at {missed} (counted from 0) is neither in "
                f"the image nor noise, and at most {self.residual:.2g} of those of validation slices: check angles, "
                "detector and noise of the scan",
            ))  # fmt: skip
        return tuple(found)

    def judged(self, prior: Prior, request: Request, mean: Tensor) -> tuple[dict[str, Any], tuple[Finding, ...]]:
        """What is outside of the limits in an answer, and both numbers of each image for its record.

        Volumes and images without a scale are not judged.

        Args:
            prior: that of the limits.
            request: data and measurement.
            mean: ``(B, *image_shape)`` in physical units.
        """
        if request.measurement.units is None or mean.ndim != 4:
            return {}, ()
        images = request.measurement.scale_to(prior.value_range).inverse(mean)
        fits = prior_fits(prior, images, request.image_ids, seed=request.seed)
        residuals = unexplained_residuals(request.y, mean, request.measurement)
        return {"familiarity": {"fits": fits, "unexplained_residuals": residuals}}, self.findings(fits, residuals)


@torch.no_grad()
def prior_fits(prior: Prior, images: Tensor, image_ids: Sequence[Key], *, seed: int = 0) -> list[float | None]:
    """The fit of the prior to each image; None where too little is inside of the object.

    Args:
        prior: the frozen prior.
        images: ``(B, C, H, W)`` in its range.
        image_ids: a name for each image, for the noise.
        seed: of the noise.
    """
    factor = max(1, round(min(images.shape[-2:]) / prior.image_shape[-1]))
    images = torch.nn.functional.avg_pool2d(images, factor) if factor > 1 else images
    time = prior.schedule.time_of(torch.tensor(NOISE)).round()
    found: list[float | None] = []
    for k, key in enumerate(image_ids):
        image = images[k : k + 1]  # one by one: a result does not depend on the batch
        inside = image > _INSIDE
        if float(inside.float().mean()) < LEAST_INSIDE:
            found.append(None)
            continue
        noise = normal_like(image, [generator_for(seed, "familiarity", key)])
        clean = prior.denoise(prior.schedule.add_noise(image, noise, time), time)
        found.append(float((clean - image)[inside].abs().median()))
    return found


@torch.no_grad()
def unexplained_residuals(y: Tensor, mean: Tensor, measurement: Measurement) -> list[float]:
    """The part of the data of each image that neither the image nor the noise explains, relative to the data.

    Args:
        y: ``(B, C, *)`` data.
        mean: ``(B, *image_shape)`` in physical units.
        measurement: physics and noise.
    """
    squares = relative_residuals(y, mean, measurement).square() - noise_residuals(y, measurement).square()
    return [float(value) for value in squares.clamp_min(0).sqrt()]
