"""Whether a network was trained for a scan."""

from __future__ import annotations

import math
from typing import Any

from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.redundancy import angular_range, missing_fraction
from deft_ct.operators.ct.view_order import distinct_views
from deft_ct.operators.findings import Finding
from deft_ct.operators.noise import NoiseModel, NoNoise, PoissonNoise

_TOLERANCE = {"views": 1.25, "photons": 2.0, "degrees": 1.1, "fan_degrees": 1.1}
"""Largest ratio to the value of the training that passes without a warning."""
_FULL = 0.03
"""Share of the lines that a full scan may miss."""
_TURN = 5.0
"""Degrees, in addition to one step, by which a limited arc may start elsewhere."""


OUTSIDE = "outside the training range"
LOWER_QUALITY = "quality will be lower than reported"


def training_finding(
    network: str, card: dict[str, Any], measurement: Measurement, *, consequence: str = LOWER_QUALITY
) -> Finding | None:
    """The finding for a scan that a network was not trained for.

    Args:
        network: its name.
        card: see :func:`outside_training`.
        measurement: the given scan.
        consequence: what becomes of the reconstruction, for the end of the sentence.

    Returns:
        The finding with every difference; None when there is none.
    """
    found = outside_training(card, measurement)
    if not found:
        return None
    return Finding(OUTSIDE, f"{network} was {'; '.join(found)}; {consequence}")


def outside_training(card: dict[str, Any], measurement: Measurement) -> list[str]:
    """How a scan differs from the scans that a network was trained for.

    The size of the images is not compared.

    Args:
        card: metadata of the network; ``card["scan"]`` holds ``geometry``, ``views``, ``photons``, ``degrees`` of
            parallel scans, and ``fan_degrees``. Zero photons stand for noise-free data. Each is a value, or a ``[low,
            high]`` range for networks that were trained for several scans or for a family of scans (``ScanRange``).
            Without ``fan_degrees``, fan scans were full turns. ``start_degrees`` lists where limited arcs started, or
            is ``"any"``; without it they started at 0.
        measurement: the given scan.

    Returns:
        One phrase for each difference, such as "trained for 12 views, the scan has 30". Empty for a card without a
        scan.
    """
    trained = card.get("scan")
    if trained is None:
        return []
    if not isinstance(measurement.operator, RayTransform):
        return [f"trained for CT, not for {type(measurement.operator).__name__}"]
    geometry = measurement.operator.geometry
    kinds, views = _listed(trained["geometry"]), views_of(measurement)
    found = [] if geometry.kind in kinds else [f"trained for {' and '.join(kinds)} beams, the scan is {geometry.kind}"]
    assert views is not None  # it is a ray transform
    found += _outside("views", trained["views"], views)
    if isinstance(geometry, ParallelGeometry | FanGeometry):
        degrees = math.degrees(angular_range(geometry))
        if isinstance(geometry, FanGeometry):
            found += _fan_arc(trained.get("fan_degrees", 360.0), degrees)
        elif "degrees" in trained:
            found += _outside("degrees", trained["degrees"], round(degrees, 1))
        found += _start(trained.get("start_degrees", [0.0]), geometry)
    return found + _photons(trained["photons"], measurement.noise)


def views_of(measurement: Measurement) -> float | None:
    """Number of distinct views of a scan; None where there are none."""
    if not isinstance(measurement.operator, RayTransform):
        return None
    geometry = measurement.operator.geometry
    return float(distinct_views(geometry) if isinstance(geometry, PlanarGeometry) else geometry.sinogram_shape[0])


def photons_of(measurement: Measurement) -> float | None:
    """Photons of an unattenuated ray; None for noise-free data and other noise."""
    return measurement.noise.photons if isinstance(measurement.noise, PoissonNoise) else None


def trained_span(card: dict[str, Any], name: str) -> tuple[float, float]:
    """Least and largest value of a quantity in ``card["scan"]``; see :func:`outside_training`."""
    return _span(card["scan"][name])


def _outside(name: str, trained: float | list[float], value: float) -> list[str]:
    low, high = _span(trained)
    if low / _TOLERANCE[name] <= value <= high * _TOLERANCE[name]:
        return []
    wanted = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return [f"trained for {wanted} {name}, the scan has {value:g}"]


def _photons(trained: float | list[float], noise: NoiseModel) -> list[str]:
    low, high = _span(trained)
    if isinstance(noise, NoNoise):
        return [] if low == 0 else [f"trained for {_wanted_photons(low, high)}, the scan is noise-free"]
    if not isinstance(noise, PoissonNoise):
        return [f"trained for photon noise, the scan has {type(noise).__name__}"]
    if high == 0:
        return [f"trained for noise-free data, the scan has {noise.photons:g} photons"]
    return _outside("photons", trained, noise.photons)


def _wanted_photons(low: float, high: float) -> str:
    return f"{low:g} photons" if low == high else f"{low:g} to {high:g} photons"


def _fan_arc(trained: float | list[float], degrees: float) -> list[str]:
    low, high = _span(trained)
    if low / _TOLERANCE["fan_degrees"] <= degrees <= high * _TOLERANCE["fan_degrees"]:
        return []
    arcs = f"{low:g} degrees" if low == high else f"{low:g} to {high:g} degrees"
    wanted = "full turns" if low >= 360 else arcs
    return [f"trained for {wanted} of a fan beam, the scan covers {degrees:.0f} degrees"]


def _start(trained: str | list[float], geometry: ParallelGeometry | FanGeometry) -> list[str]:
    """A limited arc is known by where it lies, too; a full one looks the same from every start."""
    if isinstance(trained, str) or missing_fraction(geometry) < _FULL:
        return []
    period = 360.0 if isinstance(geometry, FanGeometry) else 180.0
    start = math.degrees(float(geometry.angle_array.min())) % period
    away = min(abs((start - known + period / 2) % period - period / 2) for known in trained)
    step = math.degrees(angular_range(geometry)) / geometry.sinogram_shape[0]
    if away <= _TURN + step:  # an arc that is run through backwards ends one step before its start
        return []
    known = " or ".join(f"{angle:g}" for angle in trained)
    return [f"trained for limited arcs that start at {known} degrees, the scan's starts at {start:.0f}"]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _span(value: float | list[float]) -> tuple[float, float]:
    return (value[0], value[1]) if isinstance(value, list) else (value, value)
