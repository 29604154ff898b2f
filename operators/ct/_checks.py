"""Argument checks shared by the geometries: one clear error before any work starts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import SupportsFloat, cast

import numpy as np


def positive(name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a finite float > 0, else raise ValueError."""
    number = finite(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be > 0, got {value}")
    return number


def without_graph(name: str, value: object) -> None:
    """Raise a TypeError for a tensor (or a sequence with one) that requires gradients: geometries are plain values."""
    items = value if isinstance(value, (list, tuple)) else (value,)
    if any(getattr(item, "requires_grad", False) for item in items):
        raise TypeError(
            f"{name} requires gradients, which a geometry cannot carry: differentiate "
            f"deft_ct.operators.ct.project(image, geometry, {name}=...), align the scan with "
            f"deft_ct.operators.ct.align_scan, or pass {name}.detach()"
        )


def finite(name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a finite float, else raise."""
    without_graph(name, value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value}")
    return number


MOST = 10**6
"""Largest number of views, of detector elements and of pixels along an axis: far above any scan."""


def count(name: str, value: object) -> int:
    """Return ``value`` as an int from 1 to :data:`MOST`, else raise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")
    if value > MOST:
        raise ValueError(f"{name} must be at most {MOST}, got {value}")
    return int(value)


def counts(name: str, value: object, length: int) -> tuple[int, ...]:
    """Return ``value`` as ``length`` integers >= 1."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be {length} integers, got {value!r}")
    items = tuple(value)
    if len(items) != length:
        raise ValueError(f"{name} must be {length} integers, got {items}")
    return tuple(count(f"{name}[{i}]", n) for i, n in enumerate(items))


def spacing(name: str, value: float | Sequence[float], length: int) -> tuple[float, ...]:
    """One length in mm for all axes, or one an axis; returned as a tuple with an entry for each axis."""
    without_graph(name, value)
    if np.ndim(value) == 0:
        return (positive(name, cast(SupportsFloat, value)),) * length
    items = tuple(cast(Sequence[float], value))
    if len(items) != length:
        raise ValueError(f"{name} must be one number or {length} numbers, got {items}")
    return tuple(positive(f"{name}[{i}]", v) for i, v in enumerate(items))


def angle_tuple(
    views: int | None, angles: Sequence[float] | np.ndarray | None, start: float, span: float
) -> tuple[float, ...]:
    """The view angles in radians: ``angles`` as given, or ``views`` equal steps over ``[start, start + span)``."""
    if angles is None:
        if views is None:
            raise ValueError("pass views (a number of equally spaced views) or angles (in radians)")
        number = count("views", views)
        return tuple((start + span * np.arange(number) / number).tolist())
    without_graph("angles", angles)
    values = np.asarray(angles, dtype=np.float64)
    if values.ndim != 1 or values.size < 1:
        raise ValueError(f"angles must be a one-dimensional array of at least one angle, got shape {values.shape}")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"angles must be finite radians, got {values[bad]} at index {bad}")
    if views is not None and count("views", views) != values.size:
        raise ValueError(f"views = {views} disagrees with {values.size} angles: pass one of the two")
    return tuple(values.tolist())
