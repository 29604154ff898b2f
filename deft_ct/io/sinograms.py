"""Sinograms in files that say nothing of the scan: ``.npy``, ``.npz``, ``.mat`` and ``.tif``, with angles beside them.

The file holds ``(views, detectors)``, or ``(slices, views, detectors)``. Angles come from the same file (``angles`` or
``theta``), from another file, or from an arc. What the file holds are line integrals, or counts of photons with an open
beam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.matlab import read_matlab
from deft_ct.io.pictures import count_pages, read_picture

SINOGRAM_SUFFIXES = (".npy", ".npz", ".mat", ".tif", ".tiff")
DATA_NAMES = ("sinogram", "sino", "projections", "data", "y")
ANGLE_NAMES = ("angles", "theta")
TRANSMISSION_FLOOR = 1e-4
_NPY = b"\x93NUMPY"


@dataclass(frozen=True, kw_only=True)
class SinogramOptions:
    """What the file does not say.

    Args:
        angles: a file with one angle a view (``.npy``, ``.npz``, ``.mat``, ``.txt`` or ``.csv``); None for those of
            the file itself, or else of the arc.
        degrees: arc that equally spaced views cover.
        ends: whether the last view lies at the end of the arc.
        radians: whether angles of a file are radians.
        counts: counts of the open beam, where the file holds counts; None for line integrals.

    Raises:
        ValueError: an arc or a count out of range.
    """

    angles: Path | None = None
    degrees: float = 180.0
    ends: bool = False
    radians: bool = False
    counts: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.degrees <= 360:
            raise ValueError(f"degrees must lie in (0, 360], got {self.degrees}")
        if self.counts is not None and not (math.isfinite(self.counts) and self.counts > 0):
            raise ValueError(f"counts must be those of the open beam, a positive number, got {self.counts}")


@dataclass(frozen=True, eq=False)
class RawSinogram:
    """Line integrals and their angles.

    Attributes:
        lines: ``(slices, views, detectors)`` float32, dimensionless.
        angles: ``(views,)`` radians.
        raised: values that were raised to the least transmission (:data:`TRANSMISSION_FLOOR`): no counts at all.
    """

    lines: NDArray[np.float32]
    angles: NDArray[np.float64]
    raised: int


def read_sinogram(path: str | Path, options: SinogramOptions | None = None) -> RawSinogram:
    """Read a sinogram.

    Args:
        path: a file that ends in one of :data:`SINOGRAM_SUFFIXES`. ``.npz`` and ``.mat`` hold the data under one of
            :data:`DATA_NAMES`, and may hold angles under one of :data:`ANGLE_NAMES`.
        options: what the file does not say.

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is damaged, of another kind or shape, holds values that are not finite, or the number of angles
            is not that of the views.
    """
    source, given = Path(path), options or SinogramOptions()
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    found = read_arrays(source, (*DATA_NAMES, *ANGLE_NAMES))
    data = next((found[name] for name in DATA_NAMES if found.get(name) is not None), None)
    if data is None:
        raise ReadError(source, f"holds {sorted(found)[:10]}, expected a sinogram under one of {', '.join(DATA_NAMES)}")
    lines = real_numbers(source, data, "the sinogram")
    if lines.ndim not in (2, 3) or 0 in lines.shape:
        raise ReadError(source, f"holds data of shape {lines.shape}; expected (views, detectors) or (slices, ...)")
    lines = lines.reshape(-1, *lines.shape[-2:])
    raised = 0
    if given.counts is not None:
        low = lines < TRANSMISSION_FLOOR * given.counts
        raised = int(low.sum())
        lines = -np.log(np.where(low, TRANSMISSION_FLOOR, lines / given.counts))
    stored = next((found[name] for name in ANGLE_NAMES if found.get(name) is not None), None)
    angles = _angles(source, stored, given, lines.shape[1])
    return RawSinogram(np.ascontiguousarray(lines, np.float32), angles, raised)


def _angles(source: Path, stored: Any, given: SinogramOptions, views: int) -> NDArray[np.float64]:
    place = source
    if given.angles is not None:
        place = given.angles
        if not place.is_file():
            raise FileNotFoundError(f"no such file of angles: {place}")
        held = read_arrays(place, (*ANGLE_NAMES, *DATA_NAMES))
        stored = next((value for value in held.values() if value is not None), None)
    if stored is None:
        if given.angles is not None:
            raise ReadError(place, f"holds no angles under one of {', '.join(ANGLE_NAMES)}")
        return np.linspace(0, math.radians(given.degrees), views, endpoint=given.ends)
    angles = np.atleast_1d(real_numbers(place, stored, "the angles").squeeze())
    if angles.shape != (views,):
        raise ReadError(place, f"holds {angles.size} angles for {views} views")
    return angles if given.radians else np.radians(angles)


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Arrays of a file by name; a file of one array has it under the first name.

    Args:
        path: ends in one of :data:`SINOGRAM_SUFFIXES`, ``.txt`` or ``.csv``.
        names: those that are wanted. Where a file has none of them, all of its names with None.

    Raises:
        ReadError: it is damaged or of another kind.
    """
    suffix = path.suffix.lower()
    current_limits().check_declared(path, path.stat().st_size, path.stat().st_size, what="a sinogram")
    if suffix == ".mat":
        return read_matlab(path, names)
    if suffix in (".tif", ".tiff"):
        picture = read_picture(path)
        if count_pages(path) > 1:
            raise ReadError(path, "holds several pages; write one sinogram a file, or a .npy of (slices, views, ...)")
        return {names[0]: np.asarray(picture)}
    if suffix in (".txt", ".csv"):
        try:
            return {names[0]: np.loadtxt(path, delimiter="," if suffix == ".csv" else None)}
        except (ValueError, OverflowError) as error:
            raise ReadError(path, f"is not a list of numbers ({error})") from error
    if suffix not in SINOGRAM_SUFFIXES:
        raise ReadError(path, f"ends in {suffix or 'nothing'}; expected one of {', '.join(SINOGRAM_SUFFIXES)}")
    return _read_numpy(path, names)


def _read_numpy(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """``allow_pickle`` stays off: a pickle could run any code."""
    limits = current_limits()
    try:
        if _is_array(path):
            with path.open("rb") as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(stream)
            limits.check_declared(path, math.prod(shape) * dtype.itemsize, path.stat().st_size, what="a sinogram")
            return {names[0]: np.load(path, allow_pickle=False)}
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            held = {info.filename.removesuffix(".npy"): info for info in archive.zip.infolist()}
            for name in set(held) & set(names):
                limits.check_declared(path, held[name].file_size, held[name].compress_size, what=f"'{name}'")
            found = {name: archive[name] for name in held if name in names}
            return found or dict.fromkeys(held)
    except ReadError:
        raise
    except Exception as error:  # NumPy and zipfile raise types of every kind on damaged files
        raise ReadError(path, f"cannot be read as a NumPy file ({str(error)[:200]}); copy it again") from error


def _is_array(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(_NPY)) == _NPY


def real_numbers(path: Path, value: Any, what: str) -> NDArray[np.float64]:
    """An array as float64.

    Args:
        path: where it comes from, for messages.
        value: the array.
        what: what it is, for messages.

    Raises:
        ReadError: it holds no real numbers, or some that are not finite.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ReadError(path, f"{what} must be real numbers, got {array.dtype}")
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ReadError(path, f"{what}: {int((~np.isfinite(numbers)).sum())} values are not finite")
    return numbers
