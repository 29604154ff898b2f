"""Whether a scan is one that an h-transform was trained for."""

from __future__ import annotations

import math
from typing import Any

from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.redundancy import angular_range, missing_fraction
from deft_ct.operators.noise import PoissonNoise

_TOLERANCE = {"views": 1.25, "photons": 2.0, "degrees": 1.1, "fan_degrees": 1.1}
"""Largest ratio to the value of the training that passes without a warning."""
_FULL = 0.03
"""Share of the lines that a full scan may miss."""
_TURN = 5.0
"""Degrees, beside one step, by which a limited arc may start elsewhere."""


def outside_training(card: dict[str, Any], measurement: Measurement) -> list[str]:
    """What of a scan lies outside of what the card of an h-transform says it was trained for.

    Args:
        card: metadata of the h-transform; ``card["scan"]`` holds ``geometry``, ``views``, ``photons``,
            ``degrees`` (of parallel scans) and ``fan_degrees``, each a value or a ``[low, high]`` range. Without
            ``fan_degrees``, fan scans were full turns; ``start_degrees`` lists where limited arcs started, or
            is ``"any"``; without it they started at 0.
        measurement: the scan at hand.

    Returns:
        One sentence for each difference; empty for a card without a scan.
    """
    trained = card.get("scan")
    if trained is None:
        return []
    if not isinstance(measurement.operator, RayTransform):
        return [f"trained for CT, not for {type(measurement.operator).__name__}"]
    geometry = measurement.operator.geometry
    kind = "fan" if isinstance(geometry, FanGeometry) else "parallel"
    found = (
        [] if kind in _listed(trained["geometry"]) else [f"trained for {trained['geometry']} beams, the scan is {kind}"]
    )
    here = {"views": float(geometry.sinogram_shape[0])}
    if isinstance(geometry, ParallelGeometry | FanGeometry):
        degrees = math.degrees(angular_range(geometry))
        if kind == "parallel" and "degrees" in trained:
            here["degrees"] = round(degrees, 1)
        elif kind == "fan":
            found += _fan_arc(trained.get("fan_degrees", 360.0), degrees)
        found += _start(trained.get("start_degrees", [0.0]), geometry)
    if isinstance(measurement.noise, PoissonNoise):
        here["photons"] = measurement.noise.photons
    else:
        found.append(f"trained for photon noise, the scan has {type(measurement.noise).__name__}")
    for name, value in here.items():
        low, high = _span(trained[name])
        if not low / _TOLERANCE[name] <= value <= high * _TOLERANCE[name]:
            wanted = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            found.append(f"trained for {wanted} {name}, the scan has {value:g}")
    return found


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
