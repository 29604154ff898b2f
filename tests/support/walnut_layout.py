"""Walnuts in the published layout: names, orientation, counts and geometry; the detector and the volume are coarser."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile

from deft_ct.datasets.ellipsoids import Ellipsoid
from deft_ct.operators.ct.rays import Rays

NUT = (
    Ellipsoid(center_mm=(1.0, -2.0, 1.5), semi_axes_mm=(17.0, 14.0, 15.0), value=0.03, angle=0.4),
    Ellipsoid(center_mm=(5.0, 4.0, -3.0), semi_axes_mm=(6.0, 4.0, 5.0), value=0.02),
    Ellipsoid(center_mm=(-6.0, 1.0, 6.0), semi_axes_mm=(4.0, 5.0, 3.0), value=-0.03),
)
ROWS, COLUMNS, ELEMENT_MM = 60, 48, 2.4
HEIGHTS = {1: 18.0, 2: 0.0, 3: -18.0}
"""Of the source over the middle of the walnut, mm, by orbit."""


def write_two_walnuts(root: Path, views: int) -> Path:
    """Walnuts 3 (two orbits) and 11 (the middle one) in one root."""
    write_walnut(root / "a", 3, (1, 2), views)
    return write_walnut(root, 11, (2,), views)


def write_walnut(root: Path, number: int, orbits: Iterable[int], views: int, *, voxels_per_mm: int = 1) -> Path:
    """A walnut with projections of every ``1200 / views``-th line of the geometry, and with its reference."""
    for orbit in orbits:
        _write_orbit(root / f"Walnut{number}" / "Projections" / f"tubeV{orbit}", orbit, views)
    place = root / f"Walnut{number}" / "Reconstructions"
    place.mkdir(parents=True)
    for n, image in enumerate(nut_volume(50 * voxels_per_mm + 1, 1 / voxels_per_mm)):
        tifffile.imwrite(place / f"full_AGD_50_{n:06d}.tiff", image[::-1].astype(np.float32))  # rows count upwards
    return root


def nut_volume(voxels: int, step_mm: float, oversampling: int = 2) -> np.ndarray:
    """``(z, rows, columns)`` attenuation, row 0 at the top; the mean over each voxel."""
    fine = voxels * oversampling
    axis = (np.arange(fine) - (fine - 1) / 2) * step_mm / oversampling
    z, y, x = np.meshgrid(axis, -axis, axis, indexing="ij")
    points = np.stack([x, y, z], -1)
    values = sum(part.value * ((part.normalised(points) ** 2).sum(-1) < 1) for part in NUT)
    return np.asarray(values).reshape(voxels, oversampling, voxels, oversampling, voxels, oversampling).mean((1, 3, 5))


def orbit_vectors(orbit: int) -> np.ndarray:
    """``(1201, 12)`` source, detector, column and row steps: a circle whose views are displaced a little."""
    angle = np.linspace(0, 2 * np.pi, 1201)
    wobble = np.random.default_rng(orbit).normal(0, 0.3, (1201, 2))
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    across, along = np.stack([cos, sin, zero], -1), np.stack([-sin, cos, zero], -1)
    up = np.broadcast_to([0.0, 0.0, 1.0], across.shape)
    source = -66.0 * along + HEIGHTS[orbit] * up
    detector = 133.0 * along + (3.0 + wobble[:, :1]) * across + wobble[:, 1:] * up
    return np.concatenate([source, detector, ELEMENT_MM * across, ELEMENT_MM * up], -1)


def line_integrals(vectors: np.ndarray) -> np.ndarray:
    """``(rows, columns)`` exact line integrals of one view."""
    source, detector, column, row = vectors.reshape(4, 3)
    r = (np.arange(ROWS) - (ROWS - 1) / 2)[:, None, None]
    c = (np.arange(COLUMNS) - (COLUMNS - 1) / 2)[None, :, None]
    ahead = detector + r * row + c * column - source
    direction = ahead / np.linalg.norm(ahead, axis=-1)[..., None]
    rays = Rays(origin=np.broadcast_to(source, ahead.shape), direction=direction)
    return np.asarray(sum(part.value * part.chords(rays) for part in NUT))


def _write_orbit(folder: Path, orbit: int, views: int) -> None:
    folder.mkdir(parents=True)
    vectors = orbit_vectors(orbit)
    np.savetxt(folder / "scan_geom_corrected.geom", vectors)
    sensitivity = 1 + 0.2 * np.random.default_rng(9).random((ROWS, COLUMNS))
    dark, open_beam = np.full((ROWS, COLUMNS), 180.0), 40000 * sensitivity
    _save(folder / "di000000.tif", dark)
    _save(folder / "io000000.tif", dark + 0.99 * open_beam)
    _save(folder / "io000001.tif", dark + 1.01 * open_beam)
    for view in range(0, 1200, 1200 // views):
        counts = dark + open_beam * np.exp(-line_integrals(vectors[view]))
        _save(folder / f"scan_{1200 - view:06d}.tif", counts)


def _save(path: Path, image: np.ndarray) -> None:
    """The detector lies on its side: (rows, columns) of the geometry are transposed and upside down in the file."""
    tifffile.imwrite(path, np.rint(image.T[::-1]).astype(np.uint16))
