"""How well raw helical data are reconstructed: synthetic DICOM-CT-PD files against a circular scan of one slice."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from deft_ct.datasets.ellipsoids import EllipsoidPhantom
from deft_ct.datasets.synthetic_ct_pd import SyntheticScan, as_reconstructed, trunk, write_synthetic_scan
from deft_ct.operators.ct import FanGeometry, fbp
from deft_ct.operators.ct.helix import VolumeGrid
from deft_ct.operators.ct.rays import Rays
from deft_ct.workflows.projection_series import Slices
from deft_ct.workflows.reconstruct_projections import HelixSettings, reconstruct_projections

FILTER = "ram-lak"
_AIR = -900.0
_CLEAR = 5
_WATER_HU = 1e-3


@dataclass(frozen=True, kw_only=True)
class HelixCase:
    """A scan and the slices that are judged.

    Args:
        scan: what is written.
        size: pixels of a side.
        fov_mm: width of a slice.
        slice_mm: distance of the slices.
        count: number of slices, in the middle of the scan.
    """

    scan: SyntheticScan
    size: int = 64
    fov_mm: float = 230.0
    slice_mm: float = 1.5
    count: int = 5

    @property
    def grid(self) -> VolumeGrid:
        """The voxels that are judged."""
        pixel = self.fov_mm / self.size
        return VolumeGrid(
            image_shape=(self.count, self.size, self.size), voxel_zyx=(self.slice_mm, pixel, pixel),
            z_mm=self.scan.z_mm,
        )  # fmt: skip

    @property
    def slices(self) -> Slices:
        """The same for the reconstruction."""
        half = 0.5 * (self.count - 1) * self.slice_mm
        middle = self.scan.z_mm
        return Slices(
            size=self.size, fov_mm=self.fov_mm, slice_mm=self.slice_mm, z_range=(middle - half, middle + half)
        )


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Errors in HU.

    Attributes:
        water_bias: mean error of pixels of water away from every edge.
        rmse: root mean square error within the body, edges included.
        warnings: of the reconstruction.
    """

    water_bias: float
    rmse: float
    warnings: tuple[str, ...] = field(default=(), compare=False)


def written(case: HelixCase, folder: Path) -> Path:
    """Write the files of a case."""
    return write_synthetic_scan(folder, trunk(case.scan.mu_water), case.scan)


def helix_accuracy(case: HelixCase, files: Path, out: Path, method: str, options: Mapping[str, Any]) -> Accuracy:
    """Reconstruct files with the workflow of the command, and compare with the phantom.

    Args:
        case: what was written.
        files: the folder of the files.
        out: new folder for the result.
        method: ``"fbp"``, ``"rebinned fbp"``, or any other method, with ``"rebinned "`` before it for slices.
        options: of the method.
    """
    name = method.removeprefix("rebinned ")
    if name == "fbp":
        options = {"filter": FILTER, **options}
    settings = HelixSettings(method=name, options=options, rebin=name != method, slices=case.slices)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are kept in the result
        run = reconstruct_projections(files, out, settings)
    truth = run.place.placed(_truth_hu(case))
    return _judged(run.hu, truth, run.warnings)


def circular_limit(case: HelixCase) -> Accuracy:
    """A circular scan in the plane of every slice, with the same fan, columns and views of a turn, and the same FBP."""
    scan, grid = case.scan, case.grid
    fan = FanGeometry(
        image_shape=grid.image_shape[1:], pixel_mm=grid.voxel_zyx[1:], views=scan.views_per_turn,
        detectors=scan.columns, detector_mm=scan.column_mm, source_to_center_mm=scan.radius_mm,
        source_to_detector_mm=scan.source_to_detector_mm, detector="curved",
        detector_offset_mm=((scan.columns + 1) / 2 - scan.central[0]) * scan.column_mm,
    )  # fmt: skip
    phantom, rays = as_reconstructed(trunk(scan.mu_water)), fan.rays()
    within = (-1 / 3, 0.0, 1 / 3)  # of the thickness of a slice, as the truth is averaged
    data = [np.mean([_at_height(phantom, rays, z + part * grid.voxel_zyx[0]) for part in within], 0) for z in grid.z]
    image = fbp(torch.from_numpy(np.stack(data)[:, None].astype(np.float32)), fan, FILTER)
    return _judged((image[:, 0].numpy() / scan.mu_water - 1) * 1000, _truth_hu(case), ())


def _at_height(phantom: EllipsoidPhantom, rays: Rays, z: float) -> NDArray[np.float64]:
    origin = np.concatenate([rays.origin, np.full((*rays.origin.shape[:-1], 1), z)], -1)
    direction = np.concatenate([rays.direction, np.zeros((*rays.direction.shape[:-1], 1))], -1)
    values: NDArray[np.float64] = phantom.line_integrals(Rays(origin=origin, direction=direction)).numpy()
    return values


def _truth_hu(case: HelixCase) -> NDArray[np.float32]:
    phantom, grid = as_reconstructed(trunk(case.scan.mu_water), case.scan.z_mm), case.grid
    mu = phantom.volume(grid.image_shape, grid.voxel_zyx).numpy()
    hu: NDArray[np.float32] = ((mu / case.scan.mu_water - 1) * 1000).astype(np.float32)
    return hu


def _judged(hu: NDArray[np.floating], truth: NDArray[np.floating], found: Sequence[str]) -> Accuracy:
    error = hu - truth
    clear = np.ones((min(3, len(truth)), _CLEAR, _CLEAR))
    water = ndimage.binary_erosion(np.abs(truth) < _WATER_HU, clear, border_value=1)
    body = truth > _AIR
    return Accuracy(
        water_bias=float(error[water].mean()), rmse=float(np.sqrt((error[body] ** 2).mean())), warnings=tuple(found)
    )
