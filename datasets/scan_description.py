"""The geometry file: what a file of measured projections does not say of its scan, as YAML.

``docs/projections.md`` has an example and every key. A description is merged with what the file says itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from deft_ct.io.errors import ReadError
from deft_ct.runtime.fields import check_fields, from_values
from deft_ct.runtime.yaml_file import read_yaml

Centre = float | Literal["auto", "middle"]
Axis = Literal["slices", "frames", "views", "detectors"]
Values = Literal["line integrals", "transmission", "counts"]

_LENGTHS = ("detector_mm", "source_to_center_mm", "source_to_detector_mm", "slice_mm", "counts")
_LEAST_AXES = {"views", "detectors"}


@dataclass(frozen=True, kw_only=True)
class ScanDescription:
    """A scan in the words of a geometry file; None stands for what it does not say.

    Args:
        beam: ``"parallel"`` or ``"fan"``; parallel by default.
        detector: of a fan: ``"flat"`` (the default), or ``"curved"`` around the source.
        source_to_center_mm: of a fan.
        source_to_detector_mm: of a fan.
        detector_mm: width of a detector element; without it, lengths are in detector elements.
        detectors: number of detector elements, to be checked against the data.
        reverse_detectors: the elements count against the direction in which the package counts.
        center: detector column that the rotation axis projects to, from 0; ``"middle"``, the default; or ``"auto"``.
        angles: one for each view. Or their place: a name in the data file, or a separate file.
        unit: of the angles, degrees by default.
        first_angle: of equally spaced views, degrees.
        arc: degrees that equally spaced views cover; 180 for parallel beams and 360 for fans by default.
        ends: whether the last view lies at the end of the arc.
        turn: sense in which the angle grows, seen in the image; counter-clockwise by default.
        data: name of the projections in the file.
        axes: of the data, in their order; ``[views, detectors]`` or ``[slices, views, detectors]`` by default.
        values: what the data are; counts where there are flats or ``counts``, else line integrals.
        flats: open-beam frames: a name in the data file, or a file of its own.
        darks: frames without beam, likewise.
        counts: of the open beam, instead of flats.
        slice_mm: distance of the slices.

    Raises:
        ValueError: a value of another type, out of range, or one that contradicts another.
    """

    beam: Literal["parallel", "fan"] | None = None
    detector: Literal["flat", "curved"] | None = None
    source_to_center_mm: float | None = None
    source_to_detector_mm: float | None = None
    detector_mm: float | None = None
    detectors: int | None = None
    reverse_detectors: bool = False
    center: Centre | None = None
    angles: tuple[float, ...] | str | None = None
    unit: Literal["degrees", "radians"] | None = None
    first_angle: float | None = None
    arc: float | None = None
    ends: bool | None = None
    turn: Literal["counterclockwise", "clockwise"] | None = None
    data: str | None = None
    axes: tuple[Axis, ...] | None = None
    values: Values | None = None
    flats: str | None = None
    darks: str | None = None
    counts: float | None = None
    slice_mm: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in _LENGTHS:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.arc is not None and not 0 < self.arc <= 360:
            raise ValueError(f"arc must lie in (0, 360] degrees, got {self.arc}")
        of_fan = [n for n in ("source_to_center_mm", "source_to_detector_mm", "detector") if getattr(self, n)]
        if self.beam == "parallel" and of_fan:
            raise ValueError(f"{', '.join(of_fan)} belongs to a fan beam: write beam: fan, or leave it out")
        if self.beam == "fan" and not {"source_to_center_mm", "source_to_detector_mm"} <= set(of_fan):
            raise ValueError("beam: fan needs source_to_center_mm and source_to_detector_mm")
        if self.beam is None and of_fan:
            raise ValueError(f"{', '.join(of_fan)} is given: write beam: fan beside it")
        equal = [name for name in ("first_angle", "arc", "ends") if getattr(self, name) is not None]
        if self.angles is not None and equal:
            raise ValueError(f"angles says them all: leave out {', '.join(equal)}")
        if self.axes is not None:
            _check_axes(self.axes)
        if self.counts is not None and self.flats is not None:
            raise ValueError("flats and counts both say the open beam: leave out one")
        if self.values in ("line integrals", "transmission") and (self.counts or self.flats):
            raise ValueError(f"flats and counts are for counts, and values says {self.values}: leave out one")

    @property
    def holds(self) -> Values:
        """What the data are."""
        return self.values or ("counts" if self.flats or self.counts else "line integrals")

    @property
    def covered(self) -> float:
        """Arc of equally spaced views, degrees."""
        return self.arc if self.arc is not None else 360.0 if self.beam == "fan" else 180.0

    def over(self, other: ScanDescription) -> ScanDescription:
        """This description where it says something, and another one elsewhere.

        Raises:
            ValueError: the two contradict each other.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        said = {name: value for name, value in values.items() if value is not None and value is not False}
        if "counts" in said or said.get("values") in ("line integrals", "transmission"):
            said.setdefault("flats", None)
        if {"first_angle", "arc", "ends"} & set(said):
            said.setdefault("angles", None)
        return replace(other, **said)


def _check_axes(axes: tuple[Axis, ...]) -> None:
    if len(set(axes)) < len(axes) or not _LEAST_AXES <= set(axes) or len(axes) > 3:
        raise ValueError(
            f"axes must be views and detectors, and slices or frames if there is a third, each once; got {list(axes)}"
        )


def read_scan_description(path: Path) -> ScanDescription:
    """Read a geometry file. Names of other files in it are relative to it.

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is not YAML, or has an unknown key or a value that does not fit; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    content = read_yaml(path, "a geometry file")
    if not isinstance(content, Mapping):
        raise ReadError(path, f"is no geometry file: expected keys such as beam, got {type(content).__name__}")
    try:
        found = from_values(ScanDescription, _plain(content))
    except ValueError as error:
        raise ReadError(path, f"is no valid geometry file: {error}") from error
    beside: dict[str, Any] = {}
    for name in ("angles", "flats", "darks"):
        text = getattr(found, name)
        if isinstance(text, str) and (path.parent / text).is_file():
            beside[name] = str(path.parent / text)
    return replace(found, **beside)


def _plain(content: Mapping[Any, Any]) -> dict[str, Any]:
    """``1e5`` is text in YAML and a number to everybody else."""
    plain: dict[str, Any] = {}
    for key, value in content.items():
        number = _number(value) if key in (*_LENGTHS, "arc", "first_angle", "center") else None
        plain[str(key)] = value if number is None else number
    return plain


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
