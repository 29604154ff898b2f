"""Families of scans, from which networks for any scan are trained."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import FULL_DEGREES, Scan
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import RayTransform
from deft_ct.runtime.fields import check_fields


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
        check_fields(self)
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
    """:meth:`Scan.unit_measurement` of many scans.

    Scans with the same geometry share an operator, and none stores a matrix.

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
            geometry = scan.unit_geometry(image_shape, pixel_mm)
            shared[key] = RayTransform(geometry, "joseph" if without_matrix else "auto")
        made.append(Measurement(shared[key], scan.noise, units=HounsfieldScale()))
    return made


def _between(limits: tuple[float, float], fraction: float) -> float:
    """The value at a fraction of a range, evenly on a logarithmic scale."""
    return float(limits[0] * (limits[1] / limits[0]) ** fraction)
