"""Walnuts: MEASURED cone-beam scans of 42 walnuts on three circular orbits, each view with a geometry of its own.

Der Sarkissian, Lucka, van Eijnatten, Colacicco, Coban and Batenburg (2019), Scientific Data 6:215,
doi:10.1038/s41597-019-0235-y. Zenodo 2686725 and following.

- ``Walnut1/Projections/tubeV1/`` to ``tubeV3/`` are the three orbits, with the source high, in the middle and low.
- Each holds the counts ``scan_000000.tif`` to ``scan_001200.tif`` and the dark image ``di000000.tif``. The open beam
  before and after is in ``io000000.tif`` and ``io000001.tif``.
- ``scan_geom_corrected.geom`` has a line of 12 numbers in mm for each view, as in ASTRA's ``cone_vec``. They are the
  source, the centre of the detector and the steps to the next column and row.
- ``Walnut1/Reconstructions/full_AGD_50_000000.tiff`` and following are the slices of the reference, 50 iterations on
  all three orbits: 501 slices of 501 x 501 voxels of 0.1 mm, 1/mm.

The rest is from the authors' scripts (MIT licence):

- the files count against the lines: line ``i`` belongs to ``scan_{1200 - i}.tif``, and the last line repeats the first;
- the detector lies on its side: an image is turned upside down and transposed to (rows, columns) of the geometry;
- a volume of ``v`` voxels a mm has ``50 v + 1`` voxels along each axis. Its rows count upwards, as in ASTRA.

Not verified on a real file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.io.errors import ReadError
from deft_ct.io.pictures import read_picture
from deft_ct.operators.ct import VectorConeGeometry

VIEWS = 1200
"""Views of an orbit; a file of projections and a line of the geometry more repeat the first one."""
ORBITS = (1, 2, 3)
VOLUME_MM, VOLUME_WIDTH_MM = 50.0, 50.1
"""From the centre of the first to that of the last voxel of a reference, and between the outer faces of the two."""
DARK, OPEN_BEAMS, GEOMETRY = "di000000.tif", ("io000000.tif", "io000001.tif"), "scan_geom_corrected.geom"
WALNUT_FOLDER = re.compile(r"Walnut(\d+)")
REFERENCE_FILE = re.compile(r"full_AGD_50_(\d{6})\.tiff?")
TRANSMISSION_FLOOR = 1e-6


@dataclass(frozen=True)
class Walnuts:
    """The walnuts below a folder; their archives may be unpacked into different sub-folders.

    Args:
        root: the folder.

    Raises:
        FileNotFoundError: no such folder, or no orbit of a walnut in it.
    """

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise FileNotFoundError(f"no such folder: {self.root}")
        if not walnut_orbits(self.root):
            raise FileNotFoundError(f"{self.root} holds no Walnut*/Projections/tubeV1 to tubeV3 of the walnut data set")

    def numbers(self, orbits: tuple[int, ...]) -> list[int]:
        """Numbers of the walnuts that have all of these orbits."""
        there = walnut_orbits(self.root)
        walnuts = sorted({number for number, _ in there})
        return [number for number in walnuts if all((number, orbit) in there for orbit in orbits)]

    def referenced(self) -> list[int]:
        """Numbers of the walnuts with a reference reconstruction."""
        return sorted(self._references())

    def scan(self, number: int, how: WalnutScanOptions) -> WalnutScan:
        """Line integrals and geometry.

        Args:
            number: of the walnut.
            how: which part of its data.

        Raises:
            FileNotFoundError: a file is missing.
            ReadError: a file is damaged or of another shape.
            ValueError: bins that do not divide the detector, or a geometry that the volume does not fit in.
        """
        there = walnut_orbits(self.root)
        parts = [_orbit(there[number, orbit], how) for orbit in how.orbits]
        vectors = np.concatenate([vectors for _, vectors in parts])
        lines = np.concatenate([lines for lines, _ in parts])
        # As in ASTRA: the columns of a view come before its rows.
        source, detector, column_step, row_step = vectors.reshape(-1, 4, 3).transpose(1, 0, 2)
        geometry = VectorConeGeometry(
            image_shape=(how.side,) * 3, pixel_mm=how.voxel_mm, detectors=(lines.shape[1], lines.shape[2]),
            source_mm=source, detector_mm=detector, row_step_mm=how.bins * row_step,
            column_step_mm=how.bins * column_step,
        )  # fmt: skip
        return WalnutScan(torch.from_numpy(lines)[None], geometry)

    def reference(self, number: int, *, side: int) -> NDArray[np.float32]:
        """``(side, side, side)`` of the reference reconstruction, 1/mm, row 0 at the top; averaged over the new voxels.

        Raises:
            FileNotFoundError: it is missing.
            ReadError: a slice is missing, damaged or of another shape.
        """
        files = self._references().get(number)
        if files is None:
            raise FileNotFoundError(
                f"{self.root} holds no Walnut{number}/Reconstructions/full_AGD_50_*.tiff: unpack the whole archive"
            )
        count = len(files)
        lost = [n for n in range(count) if n not in files]
        if lost:
            raise ReadError(files[min(files)].parent, f"lacks the slice full_AGD_50_{lost[0]:06d}.tiff")
        weights = _box_weights(count, VOLUME_MM / max(count - 1, 1), side, VOLUME_WIDTH_MM / side)
        volume = np.zeros((side, side, side))
        for n in range(count):
            image = np.asarray(read_picture(files[n]), np.float64)
            if image.shape != (count, count) or not np.isfinite(image).all():
                raise ReadError(files[n], f"expected a finite image of {count} x {count}, got {image.shape}")
            used = np.flatnonzero(weights[:, n])
            volume[used] += weights[used, n, None, None] * (weights @ image @ weights.T)
        return np.ascontiguousarray(volume[:, ::-1], np.float32)

    def _references(self) -> dict[int, dict[int, Path]]:
        found: dict[int, dict[int, Path]] = {}
        for path in sorted(self.root.rglob("Reconstructions/full_AGD_50_*.tif*")):
            walnut, name = WALNUT_FOLDER.fullmatch(path.parent.parent.name), REFERENCE_FILE.fullmatch(path.name)
            if walnut and name:
                found.setdefault(int(walnut[1]), {}).setdefault(int(name[1]), path)
        return found


@dataclass(frozen=True, kw_only=True)
class WalnutScanOptions:
    """Which part of the data of a walnut is used.

    Args:
        orbits: of 1 (the source is high), 2 (middle) and 3 (low), one after the other.
        views: of each orbit, every ``1200 / views``-th; a divisor of 1200.
        bins: detector elements that are added along rows and columns; a divisor of both counts.
        side: voxels along each axis of the image, over the 50.1 mm of the reference.

    Raises:
        ValueError: a value out of range, or an orbit that is there twice.
    """

    orbits: tuple[int, ...] = (2,)
    views: int = 120
    bins: int = 6
    side: int = 128

    def __post_init__(self) -> None:
        if not self.orbits or len(set(self.orbits)) < len(self.orbits) or set(self.orbits) - set(ORBITS):
            raise ValueError(f"orbits must be of 1, 2 and 3, each once, got {self.orbits}")
        if self.views < 1 or VIEWS % self.views:
            raise ValueError(f"views must divide {VIEWS}, got {self.views}")
        if self.bins < 1 or self.side < 1:
            raise ValueError(f"bins and size must be at least 1, got {self.bins} and {self.side}")

    @property
    def voxel_mm(self) -> float:
        """Side of a voxel."""
        return VOLUME_WIDTH_MM / self.side


@dataclass(frozen=True, eq=False)
class WalnutScan:
    """A scan of a walnut.

    Attributes:
        sinogram: ``(1, views, rows, columns)`` float32 line integrals.
        geometry: one source and detector a view.
    """

    sinogram: Tensor
    geometry: VectorConeGeometry


def walnut_orbits(root: Path) -> dict[tuple[int, int], Path]:
    """(walnut, orbit) -> the folder of its projections, below a folder."""
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(root.rglob("tubeV[123]")):
        walnut = WALNUT_FOLDER.fullmatch(path.parent.parent.name)
        if path.is_dir() and path.parent.name == "Projections" and walnut:
            found.setdefault((int(walnut[1]), int(path.name[-1])), path)
    return found


def projection_file(view: int) -> str:
    """Name of the projection of a line of the geometry."""
    return f"scan_{VIEWS - view:06d}.tif"


def read_vectors(path: Path) -> NDArray[np.float64]:
    """``(1201, 12)`` numbers of a file of geometry, mm.

    Raises:
        FileNotFoundError: no such file.
        ReadError: it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except ValueError as error:
        raise ReadError(path, f"is not a list of numbers ({str(error)[:80]})") from error
    if len(rows) != VIEWS + 1 or any(len(row) != 12 for row in rows) or not np.isfinite(rows).all():
        raise ReadError(path, f"holds {len(rows)} lines, expected {VIEWS + 1} of 12 finite numbers")
    return np.array(rows)


def _orbit(folder: Path, how: WalnutScanOptions) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Line integrals ``(views, rows, columns)`` and vectors ``(views, 12)`` of an orbit."""
    chosen = range(0, VIEWS, VIEWS // how.views)
    vectors = read_vectors(folder / GEOMETRY)[chosen]
    dark = _counts(folder / DARK, how.bins)
    white = np.mean([_counts(folder / name, how.bins, dark.shape) for name in OPEN_BEAMS], 0) - dark
    if (white <= 0).any():
        raise ReadError(folder / OPEN_BEAMS[0], f"{int((white <= 0).sum())} elements are no brighter than the dark")
    lines = np.empty((how.views, *dark.shape), np.float32)
    for k, view in enumerate(chosen):
        transmission = (_counts(folder / projection_file(view), how.bins, dark.shape) - dark) / white
        lines[k] = -np.log(np.maximum(transmission, TRANSMISSION_FLOOR))
    return lines, vectors


def _counts(path: Path, bins: int, expected: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """``(rows, columns)`` counts of an image of the detector in the orientation of the geometry, binned.

    Raises:
        ReadError: it is no grey image, or of another shape than expected.
        ValueError: ``bins`` does not divide its sides.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    image: NDArray[Any] = np.asarray(read_picture(path))
    if image.ndim != 2:
        raise ReadError(path, f"holds an image of shape {image.shape}, expected one of two axes")
    counts = image[::-1].T.astype(np.float64)
    rows, columns = counts.shape
    if rows % bins or columns % bins:
        raise ValueError(f"bins must divide the {rows} x {columns} elements of the detector, got {bins}")
    binned: NDArray[np.float64] = counts.reshape(rows // bins, bins, columns // bins, bins).sum((1, 3))
    if expected is not None and binned.shape != expected:
        raise ReadError(path, f"holds {image.shape} counts, unlike the dark field beside it")
    return binned


def _box_weights(count: int, step: float, new_count: int, new_step: float) -> NDArray[np.float64]:
    """``(new_count, count)`` share of each old cell in the mean over each new one; both grids are centred."""
    old = (np.arange(count + 1) - count / 2) * step
    new = (np.arange(new_count + 1) - new_count / 2) * new_step
    overlap = np.minimum(old[None, 1:], new[1:, None]) - np.maximum(old[None, :-1], new[:-1, None])
    shares: NDArray[np.float64] = overlap.clip(0)
    return shares / shares.sum(1, keepdims=True)
