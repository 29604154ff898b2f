"""Options of ``deft-ct reconstruct`` for raw data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deft_ct.ct.calibration import Disc, WaterAndAir
from deft_ct.datasets.scan_description import Centre
from deft_ct.workflows.reconstruct_measured import Align


@dataclass(frozen=True, kw_only=True)
class ProjectionOptions:
    """Raw data instead of a series."""

    projections: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Raw data instead of a series. A file of measured projections: HTC 2022 .mat, data exchange .h5, CIL "
            ".nxs, or .npy, .npz, .mat, .tif, .h5 with --geometry. Or the folder of a helical scan in DICOM-CT-PD "
            "(unverified on a real file).",
        ),
    ] = None
    raw: Annotated[
        str | None,
        typer.Option(
            metavar="SETTINGS",
            help="Settings of raw data, such as 'fov=400,step=2': width of a slice and slice distance in mm. "
            "mu_water=0.0192 is the attenuation of water in 1/mm. Files take frames=1:3 or slices=1:3. They take "
            "center=auto, middle or a detector column, and align=center, angles or both. Others are rings=yes, "
            "truncation=ignore, mu_water=auto and mu_air=0. Places of water=X:Y:RADIUS and air=X:Y:RADIUS are in mm "
            "from the axis. Helices take z=-50:50, the range along the table in mm. With rows=reversed the detector "
            "rows count against the table position. data=helix uses the true rays, data=slices rebinned slices.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RawSettings:
    """The values of ``--raw``.

    Attributes:
        fov: width of a slice, mm.
        step: distance of the slices, mm.
        mu_water: attenuation of water, 1/mm; ``"auto"``: what most of the object has.
        z: first and last slice of a helix along the table, mm.
        reversed: whether the rows of a helix count against the table position.
        rebin: whether to rebin a helix to slices; None: as the method likes it.
        chosen: first and last slice or frame of a file, from 1.
        center: detector column of the rotation axis.
        align: what to align.
        rings: whether to remove rings.
        truncation: whether truncated data are continued.
        mu_air: attenuation of air, 1/mm.
        water: where water is.
        air: where air is.
    """

    fov: float | None = None
    step: float | None = None
    mu_water: float | Literal["auto"] | None = None
    z: tuple[float, float] | None = None
    reversed: bool = False
    rebin: bool | None = None
    chosen: tuple[int, int] | None = None
    center: Centre | None = None
    align: Align | None = None
    rings: bool = False
    truncation: bool = True
    mu_air: float | None = None
    water: Disc | None = None
    air: Disc | None = None

    def check_for(self, kind: Literal["file", "helix"]) -> None:
        """Refuse settings of the other kind of raw data.

        Raises:
            ValueError: there is one.
        """
        plain, others = RawSettings(), _OF_HELICES if kind == "file" else _OF_FILES
        given = [name for name in others if getattr(self, _READERS[name][0]) != getattr(plain, _READERS[name][0])]
        if given:
            other = "helical raw data" if kind == "file" else "files of projections"
            raise ValueError(f"--raw: {', '.join(dict.fromkeys(given))} is for {other}: leave it out")
        if kind == "helix" and self.mu_water == "auto":
            raise ValueError("--raw: mu_water=auto is for files of projections: give a number in 1/mm")

    @property
    def calibration(self) -> WaterAndAir:
        """What water and air are.

        Raises:
            ValueError: a number and a place for the same thing, or air without water.
        """
        for number, place, name in ((self.mu_water, self.water, "water"), (self.mu_air, self.air, "air")):
            if number is not None and place is not None:
                raise ValueError(f"--raw: mu_{name} and {name} both say what {name} is: leave out one")
        water = self.water or self.mu_water
        air = self.air or self.mu_air
        return WaterAndAir(water=water, air=0.0 if air is None else air)


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


def _number(name: str, text: str, least: float = 0.0) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > least):
        raise ValueError(f"--raw: {name} must be a positive number, got {text!r}")
    return value


def _or_word(*words: str) -> Callable[[str, str], float | str]:
    def read(name: str, text: str) -> float | str:
        if text in words:
            return text
        try:
            return _number(name, text)
        except ValueError:
            raise ValueError(f"--raw: {name} must be {', '.join(words)} or a positive number, got {text!r}") from None

    return read


def _not_negative(name: str, text: str) -> float:
    return 0.0 if text in ("0", "0.0") else _number(name, text)


def _range(name: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"--raw: {name} expects LOW:HIGH in mm, the smaller first, got {text!r}")
    return low, high


def _part(name: str, text: str) -> tuple[int, int]:
    first, separator, last = text.partition(":")
    try:
        low, high = int(first), int(last) if separator else int(first)
    except ValueError:
        low, high = 0, 0
    if not 1 <= low <= high:
        raise ValueError(f"--raw: {name} expects a number from 1, or FIRST:LAST, got {text!r}")
    return low, high


def _disc(name: str, text: str) -> Disc:
    try:
        x, y, radius = (float(part) for part in text.split(":"))
        return Disc(x, y, radius)
    except ValueError:
        raise ValueError(f"--raw: {name} expects X:Y:RADIUS in mm, the radius positive, got {text!r}") from None


def _word(*words: str) -> Callable[[str, str], str]:
    def read(name: str, text: str) -> str:
        if text not in words:
            raise ValueError(f"--raw: {name} must be {', '.join(words[:-1])} or {words[-1]}, got {text!r}")
        return text

    return read


def _either(false: str, true: str) -> Callable[[str, str], bool]:
    def read(name: str, text: str) -> bool:
        return _word(false, true)(name, text) == true

    return read


_OF_HELICES = ("z", "rows", "data")
_OF_FILES = ("frames", "slices", "center", "align", "rings", "truncation", "mu_air", "water", "air")
_READERS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "fov": ("fov", _number), "step": ("step", _number), "mu_water": ("mu_water", _or_word("auto")),
    "z": ("z", _range), "rows": ("reversed", _either("forward", "reversed")),
    "data": ("rebin", _either("helix", "slices")), "frames": ("chosen", _part), "slices": ("chosen", _part),
    "center": ("center", _or_word("auto", "middle")), "align": ("align", _word("center", "angles", "both")),
    "rings": ("rings", _either("no", "yes")), "truncation": ("truncation", _either("ignore", "continue")),
    "mu_air": ("mu_air", _not_negative), "water": ("water", _disc), "air": ("air", _disc),
}  # fmt: skip
