"""NeXus files as the Core Imaging Library (CIL) writes them: line integrals with the geometry of a fan beam.

Jorgensen et al. (2021), Phil. Trans. R. Soc. A 379:20200192, doi:10.1098/rsta.2020.0192. The dataset
``entry1/tomo_entry/data/data`` holds (views, elements) or (channels, views, elements), already the negative logarithm,
with the kind of geometry and the width of an element in its attributes. ``entry1/tomo_entry/config`` holds the angles
and the positions of source, detector and axis for angle 0. The channels may be the frames of a time series.

In CIL's plane a scan at angle ``theta`` is the one at angle 0, mirrored in y and turned counter-clockwise by ``theta``
in an image whose row 0 is the top one (as CIL's own conversion to ASTRA has it). This was checked on one measured file:
its reconstruction has the orientation and the scale of an independent one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.io.errors import ReadError
from deft_ct.io.untrusted import HDF5File
from deft_ct.operators.ct import FanGeometry
from deft_ct.operators.ct.vectors import ScanVectors, geometry_from_vectors

SUFFIX = ".nxs"
DATA = "entry1/tomo_entry/data/data"
_CONFIG = "entry1/tomo_entry/config"
_DEPTH = 5
_DIMENSIONS = (["angle", "horizontal"], ["channel", "angle", "horizontal"])


def is_nexus(file: HDF5File) -> bool:
    """Whether a file is one of CIL's, a scan or an image."""
    return "entry1/tomo_entry" in file


def read_nexus(path: Path, *, side: int | None = None) -> tuple[Tensor, FanGeometry]:
    """Read a fan-beam scan.

    Args:
        path: the file.
        side: pixels per side of the images, which are as wide as the part of the detector that is symmetric about the
            axis; as many as it has elements when None.

    Returns:
        ``(channels, 1, views, elements)`` float32 line integrals, and their geometry.

    Raises:
        FileNotFoundError: no such file.
        ReadError: not a scan of CIL, another geometry than a two-dimensional cone, shapes that do not match, values
            that are not finite, or a damaged file.
    """
    file = HDF5File(path, depth=_DEPTH)
    if DATA not in file:
        raise ReadError(path, f"is no NeXus file of CIL: it holds no {DATA}")

    def said(key: str) -> str:
        return str(file.attribute(DATA, key, ""))

    if said("data_type") != "AcquisitionData":
        raise ReadError(path, f"holds {said('data_type')[:40] or 'data of no type'}, expected AcquisitionData (a scan)")
    shape = file.item(DATA).shape
    order = [said(f"dim{k}") for k in range(len(shape))]
    if said("geometry") != "cone" or said("dimension") != "2D" or order not in _DIMENSIONS:
        raise ReadError(
            path,
            f"holds a scan of geometry {said('geometry')[:20]!r}, {said('dimension')[:20]!r}, axes {order}; only "
            "two-dimensional fan beams ('cone', '2D') with axes channel, angle, horizontal are read",
        )
    lines = file.read(DATA, dtype=np.float32).reshape(-1, 1, *shape[-2:])
    if 0 in lines.shape or not np.isfinite(lines).all():
        raise ReadError(path, f"holds {shape} values, of which some are not finite, or none at all")
    geometry, reversed_elements = _geometry(file, path, shape[-2], shape[-1], side)
    ordered = np.ascontiguousarray(lines[..., ::-1] if reversed_elements else lines)
    return torch.from_numpy(ordered), geometry


def _geometry(
    file: HDF5File, path: Path, views: int, elements: int, side: int | None
) -> tuple[FanGeometry, bool]:  # fmt: skip
    """The scan, and whether its elements count against those of the file."""
    turn = _angles(file, path, views)
    step = _number(path, file.attribute(DATA, "pixel_size_h"))
    origin = str(file.attribute(DATA, "panel_origin", "bottom-left"))
    source, detector, axis, across = (
        _pair(file, path, f"{_CONFIG}/{name}")
        for name in ("source/position", "detector/position", "rotation_axis/position", "detector/direction_x")
    )
    mirrored = np.array([1.0, -1.0])
    row = step * mirrored * across * (-1.0 if "right" in origin else 1.0)
    ahead = mirrored * (detector - source)
    clockwise = bool(row[0] * ahead[1] - row[1] * ahead[0] < 0)
    row = -row if clockwise else row
    cos, sin = np.cos(turn), np.sin(turn)

    def turned(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = vector
        return np.stack([cos * x - sin * y, sin * x + cos * y, np.zeros_like(cos)], -1)

    vectors = ScanVectors(
        parallel=False, beam=turned(mirrored * (source - axis)), center=turned(mirrored * (detector - axis)),
        column_step=turned(row), row_step=np.broadcast_to([0.0, 0.0, 1.0], (views, 3)).copy(), detectors=(1, elements),
    )  # fmt: skip
    try:
        scan = geometry_from_vectors(vectors, (1, elements, elements), (1.0, 1e-6, 1e-6))
    except ValueError as error:
        raise ReadError(path, f"its geometry cannot be used: {error}") from error
    assert isinstance(scan, FanGeometry)  # of a single row that lies in the plane
    center = (elements - 1) / 2 - (scan.detector_offset_mm - scan.axis_offset_mm) / step
    width = (2 * min(center, elements - 1 - center) + 1) * step
    if width <= 0:
        raise ReadError(path, f"the axis projects to column {center:.1f}, outside the detector")
    pixels = side or elements
    magnification = scan.source_to_detector_mm / scan.source_to_center_mm
    return scan.replace(image_shape=(pixels, pixels), pixel_mm=width / magnification / pixels), clockwise


def _angles(file: HDF5File, path: Path, views: int) -> NDArray[np.float64]:
    name = f"{_CONFIG}/angles"
    angles: NDArray[np.float64] = file.read(name, dtype=np.float64).ravel()
    unit = str(file.attribute(name, "angle_unit", "degree"))
    if unit not in ("degree", "radian"):
        raise ReadError(path, f"angles are in {unit[:40]!r}, expected degree or radian")
    angles = angles + _number(path, file.attribute(name, "initial_angle", 0.0))
    if angles.shape != (views,) or not np.isfinite(angles).all():
        raise ReadError(path, f"holds {angles.size} angles for {views} views, or some that are not finite")
    return np.radians(angles) if unit == "degree" else angles


def _pair(file: HDF5File, path: Path, name: str) -> NDArray[np.float64]:
    pair: NDArray[np.float64] = file.read(name, dtype=np.float64).ravel()
    if pair.shape != (2,) or not np.isfinite(pair).all():
        raise ReadError(path, f"{name} must be two finite numbers, got {pair.tolist()[:4]}")
    return pair


def _number(path: Path, value: Any) -> float:
    try:
        return float(np.asarray(value, np.float64).item())
    except (TypeError, ValueError):
        raise ReadError(path, f"expected a number, got {str(value)[:80]!r}") from None
