"""Projections of a file that a description goes with: counts become line integrals, axes get their order.

``-log((data - dark) / (flat - dark))`` with the means of the flat and dark frames. Formats: ``.npy``, ``.npz``,
``.mat``, ``.tif`` and HDF5, of which data exchange (De Carlo et al. 2014, J. Synchrotron Rad. 21, 1224) says where its
arrays are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.datasets.scan_description import Axis, ScanDescription
from deft_ct.io.errors import ReadError
from deft_ct.io.sinograms import ANGLE_NAMES, DATA_NAMES, SINOGRAM_SUFFIXES, read_arrays, real_numbers
from deft_ct.io.untrusted import HDF5File

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs")
DATA_EXCHANGE = ScanDescription(
    data="exchange/data", axes=("views", "slices", "detectors"), flats="exchange/data_white",
    darks="exchange/data_dark", angles="exchange/theta",
)  # fmt: skip
TRANSMISSION_FLOOR = 1e-4
MOST_DARK_ELEMENTS = 0.05
"""Share of the detector elements without open beam that are bridged at most."""

_FEW_VIEWS = 12

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LineIntegrals:
    """Line integrals of some slices or frames.

    Attributes:
        lines: ``(slices, views, detectors)`` float32, dimensionless.
        angles: ``(views,)`` radians, counter-clockwise in the image.
        numbers: of the slices or frames, from 1.
        total: slices or frames in the file.
        axis: ``"slices"`` or ``"frames"``.
        notes: what was corrected or assumed, in words.
        record: the same in numbers.
    """

    lines: NDArray[np.float32]
    angles: Floats
    numbers: tuple[int, ...]
    total: int
    axis: Axis
    notes: tuple[str, ...]
    record: dict[str, Any]


def read_line_integrals(path: Path, said: ScanDescription, chosen: tuple[int, int] | None = None) -> LineIntegrals:
    """Read projections, correct them by flats and darks, and take the logarithm.

    Args:
        path: the file.
        said: the scan.
        chosen: first and last slice or frame, from 1; all when None.

    Raises:
        FileNotFoundError: the file, or one that the description names, does not exist.
        ReadError: it is damaged, lacks something that the description names, or arrays do not fit each other.
    """
    source = _Arrays(path, said)
    shape = source.shape
    axes: tuple[Axis, ...] = said.axes or (("views", "detectors") if len(shape) == 2 else _DEFAULT_AXES)
    if len(shape) != len(axes) or 0 in shape:
        raise ReadError(path, f"holds projections of shape {shape}, expected the axes {', '.join(axes)}; see axes")
    stack: Axis = next((axis for axis in axes if axis not in ("views", "detectors")), "slices")
    total = dict(zip(axes, shape, strict=True)).get(stack, 1)
    part = _part(path, chosen, total, stack)
    place = axes.index(stack) if stack in axes else None
    data = _ordered(source.data(place, part), axes)
    if said.detectors is not None and said.detectors != data.shape[2]:
        raise ReadError(path, f"holds {data.shape[2]} detector elements, and the geometry file says {said.detectors}")
    frames = {name: source.frames(name, axes, place, part) for name in ("flats", "darks")}
    lines, notes, record = _logarithm(path, data, said, frames)
    angles, from_file = source.angles(data.shape[1])
    if not from_file:
        what = "both ends included" if said.ends else "the end left out"
        notes.append(f"no angles in the file: {data.shape[1]} equal steps over {said.covered:g} degrees, {what}")
    if said.reverse_detectors:
        lines = lines[:, :, ::-1]
    return LineIntegrals(
        lines=np.ascontiguousarray(lines, np.float32), angles=-angles if said.turn == "clockwise" else angles,
        numbers=tuple(range(part.start + 1, part.stop + 1)), total=total, axis=stack, notes=tuple(notes), record=record,
    )  # fmt: skip


_DEFAULT_AXES: tuple[Axis, ...] = ("slices", "views", "detectors")


class _Arrays:
    """The arrays of a file by the names of a description; HDF5 is read in parts."""

    def __init__(self, path: Path, said: ScanDescription) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"no such file: {path}")
        self.path, self.said = path, said
        self.file: HDF5File | None = None
        self.held: dict[str, Any] = {}
        if path.suffix.lower() in HDF5_SUFFIXES:
            self.file = HDF5File(path, depth=6)
            if said.data is None:
                raise ReadError(path, "is HDF5 of no known layout: name the projections in a geometry file (data: ...)")
            self.name = said.data
        elif path.suffix.lower() in SINOGRAM_SUFFIXES:
            names = DATA_NAMES if said.data is None else (said.data,)
            extra = [text for text in (said.angles, said.flats, said.darks) if isinstance(text, str)]
            self.held = read_arrays(path, (*names, *ANGLE_NAMES, *extra))
            self.name = next((name for name in names if self.held.get(name) is not None), names[0])
            if self.held.get(self.name) is None:
                raise ReadError(
                    path, f"holds {sorted(self.held)[:10]}, expected projections under one of {', '.join(names)}"
                )
        else:
            known = ", ".join((*SINOGRAM_SUFFIXES, *HDF5_SUFFIXES))
            raise ReadError(path, f"ends in {path.suffix or 'nothing'}; projections are read from {known}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape(self.name)

    def data(self, axis: int | None, part: slice) -> Floats:
        """The projections of some slices, axes as stored."""
        return self._read(self.name, "the projections", () if axis is None else (*(slice(None),) * axis, part))

    def frames(self, kind: str, axes: tuple[Axis, ...], axis: int | None, part: slice) -> Floats | None:
        """``(slices, 1, detectors)`` mean of flat or dark frames; None where there are none."""
        name = getattr(self.said, kind)
        if name is None:
            return None
        along: tuple[slice, ...] = () if axis is None else (*(slice(None),) * axis, part)
        if self._holds(name):
            shape = self._shape(name)
            cut = len(shape) == len(axes) and axis is not None and shape[axis] > 1  # frames of one slice are for all
            found = self._read(name, kind, along if cut else ())
        else:
            place, cut = Path(name), False
            if not place.is_file():
                raise ReadError(
                    self.path, f"lacks the {kind} {name}, and there is no such file; name them in a geometry file "
                    "(flats, darks), or give counts: of the open beam, or values: line integrals"
                )  # fmt: skip
            found = real_numbers(place, next(iter(read_arrays(place, (kind, *DATA_NAMES)).values())), kind)
        if found.ndim == len(axes) - 1:  # one frame
            found = np.expand_dims(found, axes.index("views"))
        if found.ndim != len(axes) or 0 in found.shape:
            raise ReadError(self.path, f"{kind} have the shape {found.shape}, expected the axes {', '.join(axes)}")
        if not cut and axis is not None and found.shape[axis] > 1:
            found = found[along]
        return _ordered(found, axes).mean(1, keepdims=True)

    def angles(self, views: int) -> tuple[Floats, bool]:
        """Radians, and whether they were given rather than assumed."""
        said, place = self.said, self.path
        unit = said.unit
        stored: Any = said.angles
        if isinstance(said.angles, str):
            if self.file is not None and said.angles in self.file:
                unit = unit or _unit(self.file, said.angles)
                stored = self.file.read(said.angles, dtype=np.float64)
            elif self.held.get(said.angles) is not None:
                stored = self.held[said.angles]
            else:
                place = Path(said.angles)
                if not place.is_file():
                    raise ReadError(self.path, f"lacks the angles {said.angles}, and there is no such file")
                stored = next(iter(read_arrays(place, (*ANGLE_NAMES, *DATA_NAMES)).values()))
        elif stored is None and said.first_angle is said.arc is said.ends is None:
            stored = next((self.held[name] for name in ANGLE_NAMES if self.held.get(name) is not None), None)
        if stored is None:
            arc = np.linspace(0, said.covered, views, endpoint=bool(said.ends))
            return np.radians((said.first_angle or 0.0) + arc), False
        angles = np.atleast_1d(real_numbers(place, stored, "the angles").squeeze())
        if angles.shape != (views,):
            raise ReadError(place, f"holds {angles.size} angles for {views} views")
        if unit is None and views > _FEW_VIEWS and float(np.ptp(angles)) <= 2 * math.pi + 0.01:
            raise ReadError(
                place, f"holds angles that span {float(np.ptp(angles)):.3g}: are they radians? Write unit: radians, or "
                "unit: degrees, in a geometry file"
            )  # fmt: skip
        return (angles if unit == "radians" else np.radians(angles)), True

    def _holds(self, name: str) -> bool:
        return name in self.file if self.file is not None else self.held.get(name) is not None

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.file.item(name).shape if self.file is not None else tuple(np.shape(self.held[name]))

    def _read(self, name: str, what: str, along: tuple[slice, ...]) -> Floats:
        if self.file is not None:
            return real_numbers(self.path, self.file.read(name, chosen=along), what)
        return real_numbers(self.path, self.held[name], what)[along]


def _part(path: Path, chosen: tuple[int, int] | None, total: int, stack: str) -> slice:
    if chosen is None:
        return slice(0, total)
    if not 1 <= chosen[0] <= chosen[1] <= total:
        raise ReadError(path, f"holds {total} {stack}, and {chosen[0]} to {chosen[1]} were asked for")
    return slice(chosen[0] - 1, chosen[1])


def _ordered(data: Floats, axes: tuple[Axis, ...]) -> Floats:
    """``(slices, views, detectors)``."""
    own = [axes.index(name) for name in ("slices", "frames", "views", "detectors") if name in axes]
    turned = data.transpose(own)
    return turned if turned.ndim == 3 else turned[None]


def _logarithm(
    path: Path, data: Floats, said: ScanDescription, frames: dict[str, Floats | None]
) -> tuple[Floats, list[str], dict[str, Any]]:
    """Line integrals, and what was done."""
    flats, darks = frames["flats"], frames["darks"]
    if said.holds == "line integrals":
        return data, ["the data are taken for line integrals, -log(transmission)"], {"values": said.holds}
    if said.holds == "counts" and flats is None and said.counts is None:
        raise ReadError(path, "holds counts: give flats, or counts: of the open beam, in a geometry file")
    for name, found in (("flats", flats), ("darks", darks)):
        if found is not None and (found.shape[0] not in (1, len(data)) or found.shape[2] != data.shape[2]):
            raise ReadError(path, f"{name} of shape {found.shape} do not fit data of shape {data.shape}")
    whole = np.ones((1, 1, 1)) if said.holds == "transmission" else np.full((1, 1, 1), said.counts or 1.0)
    dark = np.zeros((1, 1, 1)) if darks is None else darks
    beam = (whole if flats is None else flats) - dark
    bad = np.broadcast_to(beam <= 0, (len(data), 1, data.shape[2]))[:, 0]
    transmission = (data - dark) / np.where(beam > 0, beam, 1.0)
    notes = [f"counts corrected by {_frames(said, flats, darks)}"]
    if bad.any():
        if bad.mean(1).max() > MOST_DARK_ELEMENTS:
            raise ReadError(
                path, f"{int(bad.sum())} detector elements have flats no brighter than darks: are they swapped?"
            )
        _bridge(transmission, bad)
        notes.append(f"{int(bad.sum())} detector elements without open beam were bridged")
    low = transmission < TRANSMISSION_FLOOR
    if low.any():
        notes.append(f"{int(low.sum())} values without counts were raised to a transmission of {TRANSMISSION_FLOOR:g}")
    record = {"values": said.holds, "raised": int(low.sum()), "bridged_elements": int(bad.sum())}
    return -np.log(np.where(low, TRANSMISSION_FLOOR, transmission)), notes, record


def _frames(said: ScanDescription, flats: Floats | None, darks: Floats | None) -> str:
    beam = "flat fields" if flats is not None else f"an open beam of {said.counts:g}" if said.counts else "nothing"
    return beam if darks is None else f"{beam} and dark fields"


def _bridge(data: Floats, bad: NDArray[np.bool_]) -> None:
    """Interpolate between the good elements of each row, in place."""
    columns = np.arange(data.shape[2])
    for slice_, dead in zip(data, bad, strict=True):
        for row in slice_ if dead.any() else ():
            row[dead] = np.interp(columns[dead], columns[~dead], row[~dead])


def _unit(file: HDF5File, name: str) -> Any:
    text = str(file.attribute(name, "units", "degrees")).lower()
    if not text.startswith(("deg", "rad")):
        raise ReadError(file.path, f"angles are in {text[:40]!r}, expected degrees or radians")
    return "radians" if text.startswith("rad") else "degrees"
