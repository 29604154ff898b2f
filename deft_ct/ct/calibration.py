"""The Hounsfield scale of a reconstruction: from known attenuations of water and air, or from places in the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from deft_ct.ct.hounsfield import HounsfieldScale

_LEAST_PIXELS = 5


@dataclass(frozen=True)
class Disc:
    """A disc in the plane of the slices.

    Attributes:
        x_mm: of its middle, to the right of the rotation axis.
        y_mm: of its middle, above the axis.
        radius_mm: above 0.

    Raises:
        ValueError: a number that is not finite, or a radius that is not positive.
    """

    x_mm: float
    y_mm: float
    radius_mm: float

    def __post_init__(self) -> None:
        numbers = (self.x_mm, self.y_mm, self.radius_mm)
        if not all(math.isfinite(value) for value in numbers) or self.radius_mm <= 0:
            raise ValueError(f"a disc is x:y:radius in mm, the radius positive, got {numbers}")

    def mask(self, image_shape: tuple[int, int], pixel_mm: float) -> NDArray[np.bool_]:
        """``(H, W)``, where the centres of pixels lie in the disc.

        Raises:
            ValueError: the disc leaves the image, or covers fewer than 5 pixels.
        """
        rows, columns = image_shape
        x = (np.arange(columns) - 0.5 * (columns - 1)) * pixel_mm - self.x_mm
        y = (0.5 * (rows - 1) - np.arange(rows))[:, None] * pixel_mm - self.y_mm
        inside: NDArray[np.bool_] = x**2 + y**2 <= self.radius_mm**2
        width, height = 0.5 * pixel_mm * columns, 0.5 * pixel_mm * rows
        beyond = abs(self.x_mm) + self.radius_mm > width or abs(self.y_mm) + self.radius_mm > height
        if beyond or (count := int(inside.sum())) < _LEAST_PIXELS:
            what = "leaves the image" if beyond else f"covers {count} pixels"
            raise ValueError(
                f"the disc {self.x_mm:g}:{self.y_mm:g}:{self.radius_mm:g} mm {what}, which reaches {width:.4g} mm to "
                f"the sides and {height:.4g} mm up and down: choose one inside of it, of {_LEAST_PIXELS} pixels or more"
            )
        return inside


@dataclass(frozen=True, kw_only=True)
class WaterAndAir:
    """What has 0 HU and what has -1000 HU.

    Attributes:
        water: attenuation in 1/mm, or a disc in the image. ``"auto"``, for objects without water, is the mean of what
            Otsu's threshold takes for material. With None the result has no Hounsfield scale.
        air: attenuation in 1/mm, or a disc in the image.

    Raises:
        ValueError: attenuations that are none, or air without water.
    """

    water: float | Disc | Literal["auto"] | None = None
    air: float | Disc = 0.0

    def __post_init__(self) -> None:
        if self.water is None and self.air != 0.0:
            raise ValueError("air alone makes no Hounsfield scale: say what water is, too")
        for name, value in (("water", self.water), ("air", self.air)):
            if isinstance(value, float | int) and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the attenuation of {name} must be a number >= 0 in 1/mm, got {value}")
        if isinstance(self.water, float) and isinstance(self.air, float):
            HounsfieldScale(mu_water=self.water, mu_air=self.air)

    @property
    def wanted(self) -> bool:
        """Whether there is a Hounsfield scale."""
        return self.water is not None

    @property
    def needs_image(self) -> bool:
        """Whether an image has to be looked at."""
        return self.water == "auto" or isinstance(self.water, Disc) or isinstance(self.air, Disc)

    def scale(self, images: NDArray[np.floating], pixel_mm: float) -> tuple[HounsfieldScale, dict[str, Any]]:
        """The Hounsfield scale.

        Args:
            images: ``(Z, H, W)`` attenuation in 1/mm; the mean over all of them counts.
            pixel_mm: width of a pixel.

        Returns:
            The scale, and a record of how it was found.

        Raises:
            ValueError: a disc outside the image, or water that attenuates no more than air.
        """
        record: dict[str, Any] = {}
        water = _attenuation("water", self.water, images, pixel_mm, record)
        air = _attenuation("air", self.air, images, pixel_mm, record)
        if not water > max(air, 0.0):
            raise ValueError(f"water has {water:.4g} / mm here and air {air:.4g}: choose the place of water anew")
        # Noise and artefacts can take the mean of air below zero, which no material has.
        return HounsfieldScale(mu_water=water, mu_air=max(air, 0.0)), record


def _attenuation(
    name: str, given: float | Disc | str | None, images: NDArray[np.floating], pixel_mm: float, record: dict[str, Any]
) -> float:
    if isinstance(given, Disc):
        values = images[:, given.mask((images.shape[1], images.shape[2]), pixel_mm)]
        record[name] = {
            "disc_mm": [given.x_mm, given.y_mm, given.radius_mm], "per_mm": float(values.mean(dtype=np.float64)),
            "std_per_mm": float(values.std()), "pixels": int(values.size),
        }  # fmt: skip
    elif given == "auto":
        level = float(threshold_otsu(images)) if float(np.ptp(images)) > 0 else 0.0
        record[name] = {"otsu_threshold_per_mm": level, "per_mm": float(images[images > level].mean(dtype=np.float64))}
    else:
        record[name] = {"per_mm": float(given or 0.0)}
    found: float = record[name]["per_mm"]
    return found
