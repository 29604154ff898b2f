"""Simulated scans by name: the protocols of training, tuning and benchmarks."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from deft_ct.measurement import Measurement
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.redundancy import missing_fraction
from deft_ct.operators.noise import NoiseModel, NoNoise, PoissonNoise
from deft_ct.units import HounsfieldScale

_NAME = re.compile(
    r"(?P<geometry>parallel|fan)(?P<views>\d+)_(?P<photons>noisefree|\d+(?:\.\d+)?(?:e\d+)?)"
    r"(?:_(?P<degrees>\d+(?:\.\d+)?)deg)?(?:_from(?P<start>\d+(?:\.\d+)?))?(?:_(?P<detectors>\d+)bins)?"
)

FULL_DEGREES = {"parallel": 180.0, "fan": 360.0}
"""Angular range of a scan unless told otherwise: half a turn of parallel beams, a full turn of a fan."""


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
        detectors: detector elements of a parallel scan, one pixel wide each.

    Raises:
        ValueError: a value is out of range.
    """

    views: int = 60
    photons: float | None = 1e5
    geometry: str = "parallel"
    degrees: float = None  # type: ignore[assignment]  # a number after validation
    start: float = 0.0
    detectors: int = 364

    def __post_init__(self) -> None:
        if self.geometry not in ("parallel", "fan"):
            raise ValueError(f"geometry must be parallel or fan, got {self.geometry!r}")
        if self.degrees is None:
            object.__setattr__(self, "degrees", FULL_DEGREES[self.geometry])
        if self.views < 1 or self.detectors < 1 or not 0 < self.degrees <= 360:
            raise ValueError(f"views and detectors must be at least 1 and degrees lie in (0, 360], got {self}")
        if not 0 <= self.start < 360:
            raise ValueError(f"start must lie in [0, 360) degrees, got {self.start}")
        if self.photons is not None and not (math.isfinite(self.photons) and self.photons > 0):
            raise ValueError(f"photons must be a positive number, or None for noise-free data, got {self.photons}")

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
            start=float(found["start"] or 0.0), detectors=int(found["detectors"] or 364),
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
        parts += [f"{self.detectors}bins"] if self.geometry == "parallel" and self.detectors != 364 else []
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
        geometry = self._unit_geometry(image_shape, pixel_mm)
        return Measurement(RayTransform(geometry), self.noise, units=HounsfieldScale())

    def measurement(self, image_shape: tuple[int, int], pixel_mm: float) -> Measurement:
        """The scan of slices of one pixel size."""
        return Measurement(RayTransform(self._geometry(image_shape, pixel_mm)), self.noise, units=HounsfieldScale())

    def on_arc(self, geometry: ParallelGeometry | FanGeometry) -> ParallelGeometry | FanGeometry:
        """A geometry with the arc of this scan in the place of its own.

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
            return self.on_arc(FanGeometry.for_image(image_shape, pixel_mm, self.views))
        return ParallelGeometry(
            image_shape=image_shape,
            pixel_mm=pixel_mm,
            angles=self._angles,
            detectors=self.detectors,
            detector_mm=pixel_mm,
        )

    @property
    def _angles(self) -> Array:
        step = math.radians(self.degrees) / self.views
        return np.asarray(np.arange(self.views) * step + math.radians(self.start), dtype=np.float64)

    def _unit_geometry(self, image_shape: tuple[int, int], pixel_mm: float) -> ParallelGeometry | FanGeometry:
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
        start at 0 is not said for the same reason.
        """
        values: dict[str, object] = asdict(self) | {"name": self.name, "photons": self.photons or 0.0}
        if not self.start:
            del values["start"]
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


@dataclass(frozen=True, kw_only=True)
class ScanRange:
    """A family of scans, from which a network for any scan is trained.

    Numbers of views and photons are log-uniform, angular ranges uniform.

    Args:
        views: fewest and most views.
        photons: fewest and most photons.
        degrees: least and largest angular range of a parallel scan, at most 180.
        full: share of the parallel scans that cover 180 degrees.
        fan: share of fan-beam scans.
        fan_degrees: least and largest angular range of a fan-beam scan, at most 360; below half a turn and the fan
            angle (about 220 degrees) some lines are missing.
        fan_full: share of the fan-beam scans that cover a full turn.
        any_start: whether limited arcs start anywhere, instead of at angle 0.

    Raises:
        ValueError: a range is empty or a value out of bounds.
    """

    views: tuple[int, int] = (15, 200)
    photons: tuple[float, float] = (1e4, 1e6)
    degrees: tuple[float, float] = (90.0, 180.0)
    full: float = 0.5
    fan: float = 0.4
    fan_degrees: tuple[float, float] = (90.0, 360.0)
    fan_full: float = 0.5
    any_start: bool = False

    def __post_init__(self) -> None:
        bounds = {"views": (1, math.inf), "photons": (1e-9, 1e30), "degrees": (1, 180), "fan_degrees": (1, 360)}
        for name, (least, most) in bounds.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{name} must be (low, high) with {least:g} <= low <= high <= {most:g}, got {low, high}"
                )
        shares = self.full, self.fan, self.fan_full
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"full, fan and fan_full are shares, from 0 to 1; got {shares}")

    def draw(self, geometries: int, seed: int, *, levels: int = 1) -> list[Scan]:
        """Random scans that depend on the arguments alone.

        Args:
            geometries: number of geometries, spread evenly over the number of views.
            seed: of the draw.
            levels: photon counts for each geometry, spread evenly over the range.

        Returns:
            ``geometries * levels`` scans.
        """
        rng = np.random.default_rng(seed)
        scans = []
        for k in rng.permutation(geometries):
            views = round(_between(self.views, (k + rng.random()) / geometries))
            kind = "fan" if rng.random() < self.fan else "parallel"
            full, (low, high) = (self.fan_full, self.fan_degrees) if kind == "fan" else (self.full, self.degrees)
            limited = rng.random() >= full
            part = round(low + (high - low) * rng.random(), 1)
            degrees = part if limited else FULL_DEGREES[kind]
            shift = rng.random()
            start = round(359.9 * rng.random(), 1) if self.any_start and limited else 0.0
            for level in range(levels):
                photons = float(f"{_between(self.photons, (level + shift) / levels):.3g}")
                scans.append(Scan(views=views, photons=photons, geometry=kind, degrees=degrees, start=start))
        return scans


def unit_measurements(scans: Sequence[Scan], image_shape: tuple[int, int], pixel_mm: float) -> list[Measurement]:
    """:meth:`Scan.unit_measurement` of many scans: those of one geometry share an operator, and none stores a matrix.

    Args:
        scans: the scans.
        image_shape: (rows, columns).
        pixel_mm: typical pixel size, see :meth:`Scan.unit_measurement`.
    """
    without_matrix = importlib.util.find_spec("numba") is not None and not torch.cuda.is_available()
    shared: dict[Scan, RayTransform] = {}
    made = []
    for scan in scans:
        key = replace(scan, photons=None)
        if key not in shared:
            geometry = scan._unit_geometry(image_shape, pixel_mm)
            shared[key] = RayTransform(geometry, "joseph" if without_matrix else "auto")
        made.append(Measurement(shared[key], scan.noise, units=HounsfieldScale()))
    return made


def _between(limits: tuple[float, float], fraction: float) -> float:
    """The value at a fraction of a range, evenly on a logarithmic scale."""
    return float(limits[0] * (limits[1] / limits[0]) ** fraction)
