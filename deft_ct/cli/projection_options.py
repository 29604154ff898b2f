"""Options of ``deft-ct reconstruct`` for raw data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


@dataclass(frozen=True, kw_only=True)
class ProjectionOptions:
    """Raw data instead of a series."""

    projections: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Helical raw data instead of a series: one DICOM-CT-PD series of projections. Unverified on a real "
            "file.",
        ),
    ] = None
    raw: Annotated[
        str | None,
        typer.Option(
            metavar="SETTINGS",
            help="Settings of raw data, such as 'fov=400,step=2,z=-50:50': width of a slice, slice distance and range "
            "along the table, in mm. mu_water=0.0192: attenuation of water in 1/mm. rows=reversed: detector rows count "
            "against the table position. data=helix: true rays. data=slices: rebinned slices.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RawSettings:
    """The values of ``--raw``.

    Attributes:
        fov: width of a slice, mm.
        step: distance of the slices, mm.
        z: first and last slice along the table, mm.
        mu_water: attenuation of water, 1/mm.
        reversed: whether the rows count against the table position.
        rebin: whether to rebin to slices; None: as the method likes it.
    """

    fov: float | None = None
    step: float | None = None
    z: tuple[float, float] | None = None
    mu_water: float | None = None
    reversed: bool = False
    rebin: bool | None = None


def parse_raw(text: str | None) -> RawSettings:
    """The settings of ``--raw``, for example ``"fov=400,z=-50:50,data=slices"``.

    Raises:
        ValueError: an unknown name, a name without a value, one that is there twice, or a bad value.
    """
    found: dict[str, Any] = {}
    for item in text.split(",") if text else ():
        name, _, value = item.strip().partition("=")
        if name not in _READERS:
            raise ValueError(
                f"--raw has no setting {name!r}; expected {', '.join(f'{known}=...' for known in _READERS)}"
            )
        field, read = _READERS[name]
        if field in found:
            raise ValueError(f"--raw has {name} twice")
        found[field] = read(name, value)
    return RawSettings(**found)


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"--raw: {name} must be a positive number, got {text!r}")
    return value


def _range(name: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"--raw: {name} expects LOW:HIGH in mm, the smaller first, got {text!r}")
    return low, high


def _either(false: str, true: str) -> Callable[[str, str], bool]:
    def read(name: str, text: str) -> bool:
        if text not in (false, true):
            raise ValueError(f"--raw: {name} must be {false} or {true}, got {text!r}")
        return text == true

    return read


_READERS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "fov": ("fov", _number), "step": ("step", _number), "z": ("z", _range), "mu_water": ("mu_water", _number),
    "rows": ("reversed", _either("forward", "reversed")), "data": ("rebin", _either("helix", "slices")),
}  # fmt: skip
