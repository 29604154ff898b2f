"""Simulated scans by name: the protocols of training, tuning and benchmarks."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass

import numpy as np

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.redundancy import missing_fraction
from deft_ct.operators.noise import NoiseModel, NoNoise, PoissonNoise
from deft_ct.runtime.fields import check_fields

_NAME = re.compile(
    r"(?P<geometry>parallel|fan)(?P<views>\d+)_(?P<photons>noisefree|\d+(?:\.\d+)?(?:e\d+)?)"
    r"(?:_(?P<degrees>\d+(?:\.\d+)?)deg)?(?:_from(?P<start>\d+(?:\.\d+)?))?(?:_(?P<detectors>\d+)bins)?"
)

FULL_DEGREES = {"parallel": 180.0, "fan": 360.0}
"""Angular range of a scan by default: half a turn of parallel beams, a full turn of a fan."""

MOST_VIEWS = 10**5
"""Largest number of views, and of detector elements, of a simulated scan: far above any scanner."""
LEAST_DEGREES = 1e-3
"""Smallest angular range. With less, all views are one in single precision."""
LEAST_PHOTONS, MOST_PHOTONS = 1e-3, 1e15
"""Photons of a simulated scan. Below, no photon is counted; above, there is no noise in single precision."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A simulated scan, in units of the pixel so that it fits slices of every field of view.

    Args:
        views: number of views.
        photons: per detector element and view; None for noise-free data.
        geometry: ``"parallel"`` or ``"fan"`` (flat detector, distances of a clinical scanner).
        degrees: angular range; :data:`FULL_DEGREES` of the geometry if left out. A fan of half-angle ``g`` misses
            nothing from ``180 + 2 g`` degrees on (short scan).
        start: angle of the first view in degrees, from 0 to below 360.
        detectors: detector elements, each one pixel wide at the rotation axis; enough to cover the diagonal of the
            image if left out, for example 364 for 256 x 256 pixels.

    Raises:
        ValueError: a value is out of range.
    """

    views: int = 60
    photons: float | None = 1e5
    geometry: str = "parallel"
    degrees: float = None  # type: ignore[assignment]  # a number after validation
    start: float = 0.0
    detectors: int | None = None

    def __post_init__(self) -> None:
        if self.geometry not in ("parallel", "fan"):
            raise ValueError(f"geometry must be parallel or fan, got {self.geometry!r}")
        if self.degrees is None:
            object.__setattr__(self, "degrees", FULL_DEGREES[self.geometry])
        check_fields(self)
        if max(self.views, self.detectors or 0) > MOST_VIEWS:
            raise ValueError(f"views and detectors must be at most {MOST_VIEWS}, got {self.views} and {self.detectors}")
        few = self.views < 1 or (self.detectors is not None and self.detectors < 1)
        if few or not LEAST_DEGREES <= self.degrees <= 360:
            raise ValueError(
                f"views and detectors must be at least 1 and degrees lie in [{LEAST_DEGREES}, 360], got {self}"
            )
        if not 0 <= self.start < 360:
            raise ValueError(f"start must lie in [0, 360) degrees, got {self.start}")
        if self.photons is not None and not LEAST_PHOTONS <= self.photons <= MOST_PHOTONS:
            raise ValueError(
                f"photons must be a positive number from {LEAST_PHOTONS:g} to {MOST_PHOTONS:g}, or None for noise-free "
                f"data, got {self.photons}"
            )

    @staticmethod
    def is_name(name: str) -> bool:
        """Whether a text has the form that :meth:`from_name` reads."""
        return _NAME.fullmatch(name) is not None

    @classmethod
    def from_name(cls, name: str) -> Scan:
        """The scan of a name such as ``parallel60_1e5_120deg_from45``, ``fan90_noisefree`` or ``fan60_1e5_240deg``.

        Raises:
            ValueError: the name has another form.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(
                f"unknown scan {name!r}; expected GEOMETRYVIEWS_PHOTONS, for example parallel60_1e5, fan90_noisefree, "
                "parallel60_1e5_120deg (limited angle), parallel60_1e5_120deg_from45, fan60_1e5_240deg (short scan)"
            )
        photons = None if found["photons"] == "noisefree" else float(found["photons"])
        return cls(
            views=int(found["views"]), photons=photons, geometry=found["geometry"],
            degrees=float(found["degrees"] or FULL_DEGREES[found["geometry"]]),
            start=float(found["start"] or 0.0), detectors=int(found["detectors"]) if found["detectors"] else None,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """The inverse of :meth:`from_name`."""
        if self.photons is None:
            photons = "noisefree"
        else:
            digits, _, exponent = f"{self.photons:e}".partition("e")
            short = f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
            photons = short if int(exponent) >= 0 and float(short) == self.photons else f"{self.photons!r}"
        parts = [f"{self.geometry}{self.views}", photons]
        parts += [] if self.full else [f"{self.degrees:g}deg"]
        parts += [f"from{self.start:g}"] if self.start else []
        parts += [] if self.detectors is None else [f"{self.detectors}bins"]
        return "_".join(parts)

    @property
    def full(self) -> bool:
        """Whether the angular range is that of :data:`FULL_DEGREES`."""
        return self.degrees == FULL_DEGREES[self.geometry]

    @property
    def missing(self) -> float:
        """Share of the lines through a slice that no view measures, see ``operators.ct.redundancy``."""
        return missing_fraction(self._geometry((256, 256), 1.5))

    @property
    def noise(self) -> NoiseModel:
        """The noise of the detector."""
        return NoNoise() if self.photons is None else PoissonNoise(photons=self.photons)

    def unit_measurement(self, image_shape: tuple[int, int], pixel_mm: float) -> Measurement:
        """The scan in units of the pixel, which is then 1 mm wide: what networks are trained with.

        Args:
            image_shape: (rows, columns).
            pixel_mm: typical pixel size; the distances of a fan-beam scanner are divided by it.
        """
        geometry = self.unit_geometry(image_shape, pixel_mm)
        return Measurement(RayTransform(geometry), self.noise, units=HounsfieldScale())

    def measurement(self, image_shape: tuple[int, int], pixel_mm: float) -> Measurement:
        """The scan of slices of one pixel size."""
        return Measurement(RayTransform(self._geometry(image_shape, pixel_mm)), self.noise, units=HounsfieldScale())

    def on_arc(self, geometry: ParallelGeometry | FanGeometry) -> ParallelGeometry | FanGeometry:
        """The geometry with its views moved to the arc of this scan.

        Args:
            geometry: as many views, over :data:`FULL_DEGREES` from angle 0 on.
        """
        if self.full and not self.start:
            return geometry
        if isinstance(geometry, FanGeometry) and not self.start:
            return geometry.replace(angular_range=math.radians(self.degrees))
        return geometry.replace(views=None, angles=self._angles)

    def _geometry(self, image_shape: tuple[int, int], pixel_mm: float) -> ParallelGeometry | FanGeometry:
        if self.geometry == "fan":
            fan = FanGeometry.for_image(image_shape, pixel_mm, self.views)
            return self.on_arc(fan if self.detectors is None else fan.replace(detectors=self.detectors))
        return ParallelGeometry(
            image_shape=image_shape, pixel_mm=pixel_mm, angles=self._angles, detector_mm=pixel_mm,
            detectors=self.detectors,  # type: ignore[arg-type]  # None covers the image
        )  # fmt: skip

    @property
    def _angles(self) -> Array:
        step = math.radians(self.degrees) / self.views
        return np.asarray(np.arange(self.views) * step + math.radians(self.start), dtype=np.float64)

    def unit_geometry(self, image_shape: tuple[int, int], pixel_mm: float) -> ParallelGeometry | FanGeometry:
        """The geometry of the scan for pixels of 1 mm.

        Args:
            image_shape: (rows, columns).
            pixel_mm: typical pixel size; the distances of a fan-beam scanner are divided by it.
        """
        real = self._geometry(image_shape, 1.0 if self.geometry == "parallel" else pixel_mm)
        if isinstance(real, ParallelGeometry):
            return real
        return real.replace(
            pixel_mm=1.0,
            detector_mm=real.detector_mm / pixel_mm,
            source_to_center_mm=real.source_to_center_mm / pixel_mm,
            source_to_detector_mm=real.source_to_detector_mm / pixel_mm,
        )

    def to_dict(self) -> dict[str, object]:
        """JSON-ready values with the name; 0 photons stand for noise-free data.

        ``degrees`` is that of parallel scans; a fan says its own as ``fan_degrees``, and nothing for a full turn. So
        the dictionaries stored before there were short scans keep their meaning, and full turns their dictionaries; a
        start at 0 is not said for the same reason. Without ``detectors``, they follow from the image.
        """
        values: dict[str, object] = asdict(self) | {"name": self.name, "photons": self.photons or 0.0}
        if not self.start:
            del values["start"]
        if self.detectors is None:
            del values["detectors"]
        if self.geometry == "fan":
            values["degrees"] = FULL_DEGREES["parallel"]
            values |= {} if self.full else {"fan_degrees": self.degrees}
        return values

    @property
    def arc(self) -> str:
        """The angular range in words, with a space before them; nothing for a full scan from angle 0 on."""
        over = "" if self.full else f" over {self.degrees:g} degrees"
        return f"{over} from {self.start:g} degrees" if self.start else over

    def __str__(self) -> str:
        photons = "noise-free" if self.photons is None else f"{self.photons:g} photons"
        return f"{self.views} {self.geometry} views{self.arc}, {photons}"
